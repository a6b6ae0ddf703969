import { BpfCommand, bpf } from "./bpf.ts";
import { addressOf, offHeap } from "./native.ts";
import { inNetns, type Netns } from "./netns.ts";

/** enum bpf_attach_type, include/uapi/linux/bpf.h (Linux 6.6). */
const ATTACH_TYPES = { ingress: 46, egress: 47 } as const;
/** BPF_MPROG_MAX, include/linux/bpf_mprog.h. */
const MOST_PROGRAMS = 64;
// Of union bpf_attr, what PROG_QUERY takes and answers.
const queryAttr = { ifindex: 0, type: 4, ids: 16, count: 24, size: 64 };

/**
 * The BPF programs on a link's way in or out (tcx), by their numbers, in the order they run.
 * @throws {KernelError} EINVAL before Linux 6.6 and without tcx, ENODEV when the link has gone.
 */
export function tcxProgramsOf(netns: Netns, ifindex: number, direction: keyof typeof ATTACH_TYPES): number[] {
  const [query, ids] = [offHeap(queryAttr.size), offHeap(MOST_PROGRAMS * 4)];
  query.writeUInt32LE(ifindex, queryAttr.ifindex);
  query.writeUInt32LE(ATTACH_TYPES[direction], queryAttr.type);
  query.writeBigUInt64LE(addressOf(ids), queryAttr.ids);
  query.writeUInt32LE(MOST_PROGRAMS, queryAttr.count);
  // The index is of the namespace of the thread that calls.
  inNetns(netns, () => bpf(`list the ${direction} programs of link ${ifindex}`, BpfCommand.PROG_QUERY, query));
  return Array.from({ length: query.readUInt32LE(queryAttr.count) }, (_, at) => ids.readUInt32LE(at * 4));
}
