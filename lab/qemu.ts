import { join } from "node:path";
import { commandInRoot } from "./prepare/prepare.ts";
import type { Kernel, Topology } from "./topologies.ts";

/** One machine to boot. */
export interface Machine {
  /** The prepared Debian tree. */
  readonly root: string;
  readonly vmlinux: string;
  readonly initramfs: string;
  readonly kernel: Kernel;
  readonly topology: Topology;
  /** The host's folders that the guest sees: /project and /node read-only, /out to write to. */
  readonly shares: { readonly project: string; readonly node: string; readonly out: string };
  /** Of its disk, where it has one (guest-disk.ts). */
  readonly disk?: readonly string[];
  /** For a person: the console is this terminal, and nothing is reported. */
  readonly isInteractive: boolean;
}

const ADAPTERS = 2;

/**
 * The guest's clock counts its instructions, 2^2 ns each, and follows real time only while the guest waits: a limit or a pace in the
 * guest means the same whatever else the host does. 2^2 is about what an idle host of today executes.
 */
const GUEST_CLOCK = "shift=2,sleep=on";

/** The command that boots it. What the guest's second serial port says is the command's output. */
export function qemuCommand(machine: Machine): readonly [string, ...string[]] {
  const { root, shares, topology, isInteractive } = machine;
  const [loader, ...program] = commandInRoot(root, "usr/bin/qemu-system-x86_64");
  const off = "usb=off,vmport=off,hpet=off,smbus=off,sata=off,i8042=off";
  const serial = isInteractive
    ? ["-chardev", "stdio,id=console,mux=on,signal=off", "-device", "isa-serial,chardev=console", "-mon", "console"]
    : [
        ...[
          "-chardev",
          `file,id=console,path=${join(shares.out, "console.log")}`,
          "-device",
          "isa-serial,chardev=console",
        ],
        ...["-chardev", "stdio,id=report,signal=off", "-device", "isa-serial,chardev=report"],
      ];
  return [
    loader,
    ...program,
    ...["-L", join(root, "usr/share/qemu"), "-L", join(root, "usr/share/seabios")],
    ...["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-nic", "none"],
    ...["-machine", `q35,${off}`, "-accel", "tcg,thread=single,tb-size=512", "-cpu", "max", "-smp", "1", "-m", "1536"],
    ...["-icount", GUEST_CLOCK],
    ...["-kernel", machine.vmlinux, "-initrd", machine.initramfs],
    ...(topology.hasIommu ? ["-device", "intel-iommu,intremap=on"] : []),
    ...Array.from({ length: ADAPTERS }, (_, index) => adapter(index, topology)).flat(),
    ...share("root", root, true),
    ...share("project", shares.project, true),
    ...share("node", shares.node, true),
    ...share("out", shares.out, false),
    ...(machine.disk ?? []),
    ...["-device", "virtio-rng-pci"],
    ...serial,
    ...["-append", commandLine(machine)],
  ];
}

/** Behind a root port of its own, with which two of them start; all are on one hub, which has no way to the host's network. */
function adapter(index: number, { hasAcs }: Topology): readonly string[] {
  const place = `bus=pcie.0,chassis=${index + 1},slot=${index + 1},addr=${4 + index}.0`;
  return [
    ...["-netdev", `hubport,id=wire${index},hubid=0`],
    ...["-device", `pcie-root-port,id=port${index},${place}${index > 0 || hasAcs ? "" : ",disable-acs=on"}`],
    ...["-device", `igb,bus=port${index},netdev=wire${index},mac=52:54:00:aa:0${index}:01,romfile=`],
  ];
}

function share(tag: string, path: string, isReadOnly: boolean): readonly string[] {
  const options = `security_model=none,multidevs=remap${isReadOnly ? ",readonly=on" : ""}`;
  return [
    "-fsdev",
    `local,id=${tag},path=${path},${options}`,
    "-device",
    `virtio-9p-pci,fsdev=${tag},mount_tag=${tag}`,
  ];
}

function commandLine({ kernel, isInteractive }: Machine): string {
  return [
    "console=ttyS0,115200 panic=-1 loglevel=4 intel_iommu=on iommu=pt",
    // What only costs time where each instruction is emulated.
    "mitigations=off nokaslr tsc=reliable no_timer_check random.trust_cpu=1",
    // Ticks come by themselves: now and then QEMU loses a timer that the kernel sets for once, and with it a whole CPU.
    "nohz=off highres=off",
    `lab.cgroup=${kernel === "6.1" ? "v1" : "v2"}${isInteractive ? "" : " quiet"}`,
  ].join(" ");
}
