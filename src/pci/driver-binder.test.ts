import assert from "node:assert/strict";
import { test } from "node:test";
import { type Machine, type MachineOptions, startMachine } from "../../sandbox/machine/machine.ts";
import { until } from "../../test/scenes/until.ts";
import { systemClock } from "../async/index.ts";
import { KernelError } from "../kernel/index.ts";
import { HandClock, settled } from "../nsm/testing/fakes.ts";
import { recordingLog } from "../telemetry/recording-log.ts";
import { parsePciAddress } from "./address.ts";
import { DriverBinder, type DriverBinderOptions } from "./driver-binder.ts";
import { DriverError } from "./driver-fault.ts";
import { VfioGroups } from "./vfio-group.ts";

const HOUR_MS = 3_600_000;
const address = parsePciAddress("0000:01:10.0");
const vf = { address, kernelDriver: "igbvf" };
const second = { address: parsePciAddress("0000:01:10.2"), kernelDriver: "igbvf" };

interface Bench {
  readonly machine: Machine;
  readonly binder: DriverBinder;
  /** Driver changes as the binder reports them. */
  readonly reported: string[];
  /** Tries to change a driver, as they are measured. */
  readonly tried: string[];
}

async function withBinder(
  options: MachineOptions & Partial<Pick<DriverBinderOptions, "writeLimitMs" | "waitLimitMs" | "isManaged" | "clock">>,
  run: (bench: Bench) => Promise<void>,
): Promise<void> {
  const {
    writeLimitMs = HOUR_MS,
    waitLimitMs = HOUR_MS,
    clock = systemClock,
    isManaged = (name) => !name.endsWith(":00.0"),
    ...rest
  } = options;
  const machine = await startMachine({ pfs: 1, vfsPerPf: 2, clock, ...rest });
  const reported: string[] = [];
  const tried: string[] = [];
  const binder = new DriverBinder({
    ...machine,
    clock,
    log: recordingLog(),
    isManaged,
    onTried: (use, outcome, seconds) => tried.push(`${use} ${outcome} ${seconds >= 0}`),
    onBound: (which, driver) => reported.push(`${which} ${driver}`),
    writeLimitMs,
    waitLimitMs,
  });
  try {
    await run({ machine, binder, reported, tried });
  } finally {
    await machine.stop();
  }
}

/** Lets limits pass, of which each step of the work has one, until the work is over. */
async function passUntil(clock: HandClock, limitMs: number, work: Promise<unknown>): Promise<void> {
  let isOver = false;
  void work.finally(() => {
    isOver = true;
  });
  await until("the work ends at its limits", () => isOver, { turn: () => clock.pass(limitMs) });
}

async function faultOf(work: Promise<unknown>): Promise<unknown> {
  try {
    await work;
  } catch (error) {
    assert.ok(error instanceof DriverError, String(error));
    return error.fault;
  }
  return "none";
}

test("DriverBinder.observeVf() reports what a VF is now, also of one that is not there", () =>
  withBinder({}, async ({ machine, binder }) => {
    const asKernel = { isPresent: true, driver: "igbvf", iommuGroup: 2, hasNetdev: true };
    assert.deepEqual(await binder.observeVf(address), asKernel);
    await binder.bind(vf, "vfio");
    assert.deepEqual(await binder.observeVf(address), { ...asKernel, driver: "vfio-pci", hasNetdev: false });
    await machine.removePf("0000:01:00.0");
    const nothing = { isPresent: false, driver: undefined, iommuGroup: undefined, hasNetdev: false };
    assert.deepEqual(await binder.observeVf(address), nothing);
  }));

test("DriverBinder.bind() takes a VF to VFIO and back, and clears the override for the kernel driver", () =>
  withBinder({}, async ({ machine, binder, reported, tried }) => {
    await binder.bind(vf, "vfio");
    assert.equal(await binder.driverOf(address), "vfio-pci");
    assert.equal(await machine.vfio.exists("2"), true);
    await binder.bind(vf, "kernel");
    assert.equal(await binder.driverOf(address), "igbvf");
    assert.equal(await machine.devices.readText(`${address}/driver_override`), "(null)");
    assert.deepEqual(reported, [`${address} vfio-pci`, `${address} igbvf`]);
    assert.deepEqual(tried, ["vfio ok true", "kernel ok true"]);
    assert.equal((await binder.netdevOf(address)).ifname, "enp1s0f0v0");
  }));

test("DriverBinder.bind() writes nothing for a driver that is bound already", () =>
  withBinder({}, async ({ machine, binder, reported, tried }) => {
    machine.faults.failWrite({ tree: "drivers", path: /./, code: "EIO", times: 9 });
    machine.faults.failWrite({ tree: "devices", path: /./, code: "EIO", times: 9 });
    await binder.bind(vf, "kernel");
    assert.deepEqual([reported, tried], [[], []]);
  }));

test("DriverBinder.bind() restores the former driver when the new one refuses, and says what the kernel said", () =>
  withBinder({}, async ({ machine, binder, reported, tried }) => {
    machine.faults.failWrite({ tree: "drivers", path: "vfio-pci/bind", code: "EBUSY" });
    assert.deepEqual(await faultOf(binder.bind(vf, "vfio")), {
      kind: "bind-refused",
      driver: "vfio-pci",
      code: "EBUSY",
    });
    assert.deepEqual(reported, [`${address} igbvf`]);
    assert.equal(await machine.devices.readText(`${address}/driver_override`), "(null)");
    await binder.bind(vf, "vfio");
    assert.deepEqual(tried, ["vfio failed true", "vfio ok true"]);
  }));

test("DriverBinder.bind() believes the link, not an error from a write that did its work", () =>
  withBinder({}, async ({ machine, binder }) => {
    const real = machine.drivers;
    const lying: typeof real = {
      ...real,
      async writeText(path, text, options) {
        await real.writeText(path, text, options);
        if (path === "vfio-pci/bind") await real.writeText("vfio-pci/bind", text, options); // EBUSY: it is bound
      },
    };
    const bench = { ...machine, drivers: lying, clock: systemClock, log: recordingLog(), isManaged: () => true };
    await new DriverBinder(bench).bind(vf, "vfio");
    assert.equal(await binder.driverOf(address), "vfio-pci");
  }));

test("DriverBinder.bind() gives up a write that does not return, and other VFs do not notice", async () => {
  const clock = new HandClock();
  await withBinder({ writeLimitMs: 30, clock }, async ({ machine, binder }) => {
    machine.faults.stallWrite({ tree: "drivers", path: "igbvf/unbind", text: address });
    const stuck = faultOf(binder.bind(vf, "vfio"));
    await binder.bind(second, "vfio");
    assert.equal(await binder.driverOf(second.address), "vfio-pci");
    await passUntil(clock, 30, stuck);
    assert.deepEqual(await stuck, { kind: "write-stuck", driver: "vfio-pci" });
  });
});

test("DriverBinder.bind() does not take a VF from a process that has it open", () =>
  withBinder({}, async ({ machine, binder, reported }) => {
    await binder.bind(vf, "vfio");
    const close = machine.openGroup(2);
    assert.deepEqual(await faultOf(binder.bind(vf, "kernel")), { kind: "group-open", group: 2, processes: [] });
    assert.equal(await binder.driverOf(address), "vfio-pci");
    close();
    await binder.bind(vf, "kernel");
    assert.deepEqual(reported.at(-1), `${address} igbvf`);
  }));

test("VfioGroups.refuseOpen() says so where it may not read, and passes on every other errno", () =>
  withBinder({}, async ({ machine, binder }) => {
    await binder.bind(vf, "vfio");
    let errno = 1; // EPERM
    const heldBy = () => Promise.reject(new KernelError("open the group", errno));
    const groups = new VfioGroups({ ...machine, vfio: { ...machine.vfio, heldBy }, clock: systemClock });
    assert.deepEqual(await faultOf(groups.refuseOpen(address)), { kind: "group-unreadable", group: 2, code: "EPERM" });
    errno = 5;
    await assert.rejects(groups.refuseOpen(address), { code: "EIO" });
  }));

test("DriverBinder.bind() gives up a write that waits for a process which opened the VF just then", async () => {
  const clock = new HandClock();
  await withBinder({ writeLimitMs: 20, clock }, async ({ machine, binder }) => {
    await binder.bind(vf, "vfio");
    const letGo = machine.faults.stallWrite({ tree: "drivers", path: "vfio-pci/unbind" });
    const stuck = faultOf(binder.bind(vf, "kernel"));
    await passUntil(clock, 20, stuck);
    assert.deepEqual(await stuck, { kind: "write-stuck", driver: "igbvf" });
    letGo();
  });
});

test("VfioGroups.deviceOf() has the numbers of the nodes, and says which node is missing", () =>
  withBinder({}, async ({ machine, binder }) => {
    assert.deepEqual(await faultOf(binder.vfio.deviceOf(address)), { kind: "no-vfio-node", group: 2 });
    await binder.bind(vf, "vfio");
    const [container, device] = [await machine.vfio.deviceNumber("vfio"), await machine.vfio.deviceNumber("2")];
    assert.deepEqual(await binder.vfio.deviceOf(address), { group: 2, container, device });
    assert.deepEqual(container, { major: 10, minor: 196 });
  }));

test("DriverBinder.bind() moves the whole IOMMU group to VFIO, one VF at a time", () =>
  withBinder({ iommu: "pairs" }, async ({ binder, reported }) => {
    await Promise.all([binder.bind(vf, "vfio"), binder.bind(second, "vfio")]);
    assert.deepEqual(reported, [`${address} vfio-pci`, `${second.address} vfio-pci`]);
  }));

const refusals = [
  {
    says: "VFIO for a group that holds the physical function",
    machine: { iommu: "with-pf" },
    fault: { kind: "group-shared", group: 1, others: ["0000:01:00.0"] },
  },
  { says: "VFIO without an IOMMU", machine: { iommu: "none" }, fault: { kind: "no-iommu" } },
] as const;
for (const { says, machine: options, fault } of refusals) {
  test(`DriverBinder.bind() refuses ${says} and leaves everything as it was`, () =>
    withBinder(options, async ({ binder, reported }) => {
      assert.deepEqual(await faultOf(binder.bind(vf, "vfio")), fault);
      assert.deepEqual(reported, []);
      assert.equal(await binder.driverOf(address), "igbvf");
      await binder.bind(vf, "kernel");
    }));
}

test("DriverBinder.bind() names the module of a driver the kernel does not have, before it unbinds anything", () =>
  withBinder({}, async ({ binder, reported }) => {
    const work = binder.bind({ address, kernelDriver: "iavf" }, "kernel");
    await assert.rejects(work, { fault: { kind: "driver-missing", driver: "iavf" }, message: /modprobe iavf/ });
    assert.deepEqual(reported, []);
  }));

test("DriverBinder.bind() never touches a physical function, nor one that is gone", () =>
  withBinder({}, async ({ machine, binder }) => {
    const pf = { address: parsePciAddress("0000:01:00.0"), kernelDriver: "igb" };
    assert.deepEqual(await faultOf(binder.bind(pf, "kernel")), { kind: "not-virtual" });
    await machine.removePf("0000:01:00.0");
    assert.deepEqual(await faultOf(binder.bind(vf, "kernel")), { kind: "gone" });
  }));

test("DriverBinder.netdevOf() waits for a driver that takes its time, woken by the kernel's event", () =>
  withBinder({ netdevDelayMs: 30, waitLimitMs: 60_000 }, async ({ binder }) => {
    await binder.bind(vf, "vfio");
    await binder.bind(vf, "kernel");
    assert.equal((await binder.netdevOf(address)).ifname, "enp1s0f0v0");
  }));

test("DriverBinder.netdevOf() finds the device at its last read when the event was lost", async () => {
  const clock = new HandClock();
  const slow = Promise.withResolvers<void>();
  await withBinder({ netdevsWait: () => slow.promise, clock }, async ({ machine, binder }) => {
    machine.faults.loseUevents(9);
    const found = binder.netdevOf(address);
    await settled(); // the first read
    slow.resolve();
    await until("the VF has a network device", async () => (await binder.netdevNow(address)) !== undefined);
    await clock.pass(HOUR_MS);
    assert.equal((await found).ifname, "enp1s0f0v0");
  });
});

test("DriverBinder.netdevOf() says so when there is none, and lets go when its caller does", () =>
  withBinder({ waitLimitMs: 10 }, async ({ machine, binder }) => {
    await binder.bind(vf, "vfio");
    assert.deepEqual(await faultOf(binder.netdevOf(address)), { kind: "no-netdev" });
    const caller = new AbortController();
    const patient = new DriverBinder({ ...machine, clock: systemClock, log: recordingLog(), isManaged: () => true });
    const waiting = patient.netdevOf(address, caller.signal);
    caller.abort(new Error("caller has gone"));
    await assert.rejects(waiting, /caller has gone/);
  }));
