// The smallest BPF programs that there are, for tests of what a pod may leave on a link.
import { addressOf, BpfCommand, bpf, Fd, inNetns, LinkControl, type Netns, offHeap } from "../../src/kernel/index.ts";

// enum bpf_cmd, bpf_prog_type, bpf_attach_type, include/uapi/linux/bpf.h
const LINK_CREATE = 28;
const PROGRAM_TYPES = { tcx: 3, xdp: 6 } as const;
const ATTACH_TYPES = { tcx: 46, xdp: 37 } as const;
const XDP_PASS = 2;
const IFLA_XDP = 43;

/** `mov r0, answer; exit`: lets every packet pass. */
export function loadPassAll(kind: keyof typeof PROGRAM_TYPES): Fd {
  const code = offHeap(16);
  code.set([0xb7, 0, 0, 0, kind === "xdp" ? XDP_PASS : 0], 0);
  code.set([0x95], 8);
  const licence = offHeap(16);
  licence.write("Apache-2.0");
  const attributes = offHeap(72);
  attributes.writeUInt32LE(PROGRAM_TYPES[kind], 0);
  attributes.writeUInt32LE(2, 4);
  attributes.writeBigUInt64LE(addressOf(code), 8);
  attributes.writeBigUInt64LE(addressOf(licence), 16);
  return Fd.own(bpf(`load a program for ${kind}`, BpfCommand.PROG_LOAD, attributes));
}

/** Attaches it by a bpf_link, which no other process can take off. XDP has the mode as its flags. */
export function attachByBpfLink(
  netns: Netns,
  ifindex: number,
  {
    kind,
    program,
    flags = 0,
  }: { readonly kind: keyof typeof ATTACH_TYPES; readonly program: Fd; readonly flags?: number },
): Fd {
  const attributes = offHeap(64);
  attributes.writeUInt32LE(program.number, 0);
  attributes.writeUInt32LE(ifindex, 4);
  attributes.writeUInt32LE(ATTACH_TYPES[kind], 8);
  attributes.writeUInt32LE(flags, 12);
  return Fd.own(inNetns(netns, () => bpf(`attach a program to link ${ifindex}`, LINK_CREATE, attributes)));
}

/** Attaches an XDP program by netlink, as `ip link set xdp` does: it stays when its loader ends. */
export async function attachXdp(
  netns: Netns,
  ifindex: number,
  { program, flags }: { readonly program: Fd; readonly flags: number },
): Promise<void> {
  const value = Buffer.alloc(16);
  value.writeUInt16LE(8, 0);
  value.writeUInt16LE(1, 2); // IFLA_XDP_FD
  value.writeInt32LE(program.number, 4);
  value.writeUInt16LE(8, 8);
  value.writeUInt16LE(3, 10); // IFLA_XDP_FLAGS
  value.writeUInt32LE(flags, 12);
  const control = await LinkControl.open(netns);
  const [refusal] = await control.write(ifindex, [
    { kind: "link", attributes: [{ type: IFLA_XDP, value, isNested: true }] },
  ]);
  control.close();
  if (refusal) throw refusal;
}
