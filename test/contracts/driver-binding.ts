// What the kernel does when drivers of virtual functions change. Each contract takes a subject: the pretend machine, or the
// files of a real one. They keep the sandbox honest, for everything else is tested on it.
import assert from "node:assert/strict";
import { type HostFiles, KernelError, type UeventSource } from "../../src/kernel/index.ts";
import { until } from "../scenes/until.ts";

/** A node with at least one physical function that has virtual ones, none in use. */
export interface DriverSubject {
  readonly devices: HostFiles;
  readonly drivers: HostFiles;
  readonly vfio: HostFiles;
  readonly uevents: UeventSource;
  /** A physical function with `vf` among its virtual functions. */
  readonly pf: string;
  /** Bound to `kernelDriver`, with its network device in the host's namespace; left so by every contract. */
  readonly vf: string;
  readonly kernelDriver: string;
}

/** The code that the kernel answers with; "" when it takes the write. */
async function codeOf(work: Promise<void>): Promise<string> {
  try {
    await work;
    return "";
  } catch (error) {
    assert.ok(error instanceof KernelError, String(error));
    return error.code;
  }
}

/** The driver of the PCI function; undefined when it has none. */
export async function driverOf({ devices, vf }: DriverSubject): Promise<string | undefined> {
  const exists = await devices.exists(`${vf}/driver`);
  return exists ? (await devices.readLink(`${vf}/driver`)).split("/").at(-1) : undefined;
}

function bind({ drivers, vf }: DriverSubject, driver: string): Promise<string> {
  return codeOf(drivers.writeText(`${driver}/bind`, vf));
}

function unbind({ drivers, vf }: DriverSubject, driver: string): Promise<string> {
  return codeOf(drivers.writeText(`${driver}/unbind`, vf));
}

function override({ devices, vf }: DriverSubject, driver: string): Promise<string> {
  return codeOf(devices.writeText(`${vf}/driver_override`, driver));
}

/** Binds the PCI function to a driver, whichever it has. */
export async function bindTo(subject: DriverSubject, driver: string): Promise<void> {
  const before = await driverOf(subject);
  assert.equal(await override(subject, driver === subject.kernelDriver ? "\n" : driver), "");
  if (before !== undefined) assert.equal(await unbind(subject, before), "");
  assert.equal(await bind(subject, driver), "");
}

/** Every contract by its sentence. */
export const driverBindingContracts: Readonly<Record<string, (subject: DriverSubject) => Promise<void>>> = {
  "vfio-pci takes only a PCI function whose override names it": async (subject) => {
    assert.equal(await bind(subject, "vfio-pci"), "ENODEV");
    assert.equal(await unbind(subject, subject.kernelDriver), "");
    assert.equal(await bind(subject, "vfio-pci"), "ENODEV");
    assert.equal(await override(subject, "vfio-pci"), "");
    assert.equal(await bind(subject, subject.kernelDriver), "ENODEV");
    assert.equal(await bind(subject, "vfio-pci"), "");
    assert.equal(await driverOf(subject), "vfio-pci");
    assert.equal(await unbind(subject, "vfio-pci"), "");
    assert.equal(await override(subject, "\n"), "");
    assert.equal(await bind(subject, subject.kernelDriver), "");
  },
  "an override does not move a bound PCI function, and reads back": async (subject) => {
    assert.equal(await override(subject, "vfio-pci"), "");
    assert.equal(await subject.devices.readText(`${subject.vf}/driver_override`), "vfio-pci");
    assert.equal(await driverOf(subject), subject.kernelDriver);
    assert.equal(await override(subject, "\n"), "");
    assert.equal(await subject.devices.readText(`${subject.vf}/driver_override`), "(null)");
  },
  "a bound PCI function cannot be bound again, a free one not unbound": async (subject) => {
    assert.equal(await bind(subject, subject.kernelDriver), "EBUSY");
    assert.equal(await unbind(subject, subject.kernelDriver), "");
    assert.equal(await unbind(subject, subject.kernelDriver), "ENODEV");
    assert.equal(await driverOf(subject), undefined);
    assert.equal(await bind(subject, subject.kernelDriver), "");
  },
  "the number of VFs is not changed while there are some, and has a limit": async (subject) => {
    const write = (count: number) => codeOf(subject.devices.writeText(`${subject.pf}/sriov_numvfs`, String(count)));
    const total = Number(await subject.devices.readText(`${subject.pf}/sriov_totalvfs`));
    const current = Number(await subject.devices.readText(`${subject.pf}/sriov_numvfs`));
    assert.equal(await write(total + 1), "ERANGE");
    assert.equal(await write(current), "");
    assert.equal(await write(current > 1 ? current - 1 : current + 1), "EBUSY");
  },
  "the network device comes and goes with the kernel driver, and the kernel says so": async (subject) => {
    const seen: string[] = [];
    const stop = subject.uevents.subscribe(({ action, subsystem, devpath }) => {
      if (devpath.split("/").includes(subject.vf)) seen.push(`${action} ${subsystem}`);
    });
    try {
      assert.equal((await subject.devices.list(`${subject.vf}/net`)).length, 1);
      assert.equal(await unbind(subject, subject.kernelDriver), "");
      assert.equal(await subject.devices.exists(`${subject.vf}/net`), false);
      assert.equal(await bind(subject, subject.kernelDriver), "");
      await untilKernel("the network device is back", () => seen.includes("add net") && seen.includes("bind pci"));
      assert.equal((await subject.devices.list(`${subject.vf}/net`)).length, 1);
      assert.deepEqual(seen.filter((event) => !event.endsWith(" queues")).slice(0, 2), ["remove net", "unbind pci"]);
    } finally {
      stop();
    }
  },
  "vfio-pci brings a node for the group, and takes it away": async (subject) => {
    const group = (await subject.devices.readLink(`${subject.vf}/iommu_group`)).split("/").at(-1) ?? "";
    assert.equal(await subject.vfio.exists(group), false);
    assert.equal(await override(subject, "vfio-pci"), "");
    assert.equal(await unbind(subject, subject.kernelDriver), "");
    assert.equal(await bind(subject, "vfio-pci"), "");
    await untilKernel("the group has its node", () => subject.vfio.exists(group));
    assert.ok((await subject.vfio.deviceNumber(group)).major > 0);
    assert.equal(await unbind(subject, "vfio-pci"), "");
    await untilKernel("the node of the group goes", async () => !(await subject.vfio.exists(group)));
    assert.equal(await override(subject, "\n"), "");
    assert.equal(await bind(subject, subject.kernelDriver), "");
  },
};

/** A real kernel in a guest answers when it likes. */
export const untilKernel = (awaited: string, isSo: () => boolean | Promise<boolean>) =>
  until(awaited, isSo, { limitMs: 100_000 });
