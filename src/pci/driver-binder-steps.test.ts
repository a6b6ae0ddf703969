// Each write to sysfs, in its order: after a failure, when a write does not return, and in an IOMMU group of two.
import assert from "node:assert/strict";
import { test } from "node:test";
import { type Machine, type MachineOptions, startMachine } from "../../sandbox/machine/machine.ts";
import { until } from "../../test/scenes/until.ts";
import { systemClock } from "../async/index.ts";
import { type HostFiles, KernelError } from "../kernel/index.ts";
import { HandClock, settled } from "../nsm/testing/fakes.ts";
import { type RecordingLog, recordingLog } from "../telemetry/recording-log.ts";
import { parsePciAddress } from "./address.ts";
import { DriverBinder, type DriverBinderOptions } from "./driver-binder.ts";
import { DriverError } from "./driver-fault.ts";

const [one, two] = [parsePciAddress("0000:01:10.0"), parsePciAddress("0000:01:10.2")];
const vf = { address: one, kernelDriver: "igbvf" };
const LIMIT_MS = 10_000;
const STUCK = { kind: "write-stuck", driver: "vfio-pci" } as const;

interface Bench {
  readonly machine: Machine;
  readonly binder: DriverBinder;
  /** Every write, and each driver that the binder reports. */
  readonly steps: string[];
  readonly log: RecordingLog;
}

async function withBinder(
  options: MachineOptions & Partial<Pick<DriverBinderOptions, "refuseChange">>,
  run: (bench: Bench) => Promise<void>,
): Promise<void> {
  const { refuseChange, clock = systemClock } = options;
  const machine = await startMachine({ pfs: 1, vfsPerPf: 2, ...options });
  const steps: string[] = [];
  const log = recordingLog();
  const noting = (files: HostFiles): HostFiles => ({
    ...files,
    writeText(path, text, limit) {
      steps.push(`${path.replace(`${one}/`, "").replace(`${two}/`, "two/")} ${JSON.stringify(text.slice(-12))}`);
      return files.writeText(path, text, limit);
    },
  });
  const binder = new DriverBinder({
    ...machine,
    devices: noting(machine.devices),
    drivers: noting(machine.drivers),
    clock,
    log,
    isManaged: (name) => !name.endsWith(":00.0"),
    onBound: (_, driver) => steps.push(`bound to ${driver}`),
    ...(refuseChange && { refuseChange }),
  });
  try {
    await run({ machine, binder, steps, log });
  } finally {
    await machine.stop();
  }
}

async function faultOf(work: Promise<unknown>): Promise<unknown> {
  return await work.then(
    () => "none",
    (error: unknown) => (error instanceof DriverError ? error.fault : error),
  );
}

const toVfio = [`driver_override "vfio-pci"`, `igbvf/unbind "${one}"`, `vfio-pci/bind "${one}"`];

test("DriverBinder.bind() leaves VFIO's override in place, and takes the kernel driver's away", () =>
  withBinder({}, async ({ binder, steps }) => {
    await binder.bind(vf, "vfio");
    assert.deepEqual(steps.splice(0), [...toVfio, "bound to vfio-pci"]);
    await binder.bind(vf, "kernel");
    const toKernel = [`driver_override "igbvf"`, `vfio-pci/unbind "${one}"`, `igbvf/bind "${one}"`];
    assert.deepEqual(steps, [...toKernel, String.raw`driver_override "\n"`, "bound to igbvf"]);
  }));

test("DriverBinder.bind() checks whether the driver may be changed, where it would be changed, and else writes nothing", () => {
  const refusal = new DriverError(one, { kind: "host-uses-it", how: "it has an address" });
  let queried = 0;
  const refuseChange = async () => {
    queried += 1;
    throw refusal;
  };
  return withBinder({ refuseChange }, async ({ binder, steps }) => {
    await binder.bind(vf, "kernel");
    assert.equal(queried, 0);
    assert.equal(await faultOf(binder.bind(vf, "vfio")), refusal.fault);
    assert.deepEqual([queried, steps], [1, []]);
  });
});

test("DriverBinder.beforeVfio() is called while the kernel driver has the VF, and what it throws changes nothing", () =>
  withBinder({}, async ({ binder, steps }) => {
    const refusal = new Error("the journal cannot be written");
    binder.beforeVfio(async (address) => {
      steps.push(`keep ${await binder.driverOf(address)}, changing: ${binder.isChanging(address)}`);
      if (steps.length === 1) throw refusal;
    });
    await assert.rejects(binder.bind(vf, "vfio"), refusal);
    assert.deepEqual([steps.splice(0), binder.isChanging(one)], [["keep igbvf, changing: true"], false]);
    steps.push("again");
    await binder.bind(vf, "vfio");
    assert.deepEqual(steps.splice(0), ["again", "keep igbvf, changing: true", ...toVfio, "bound to vfio-pci"]);
    await binder.bind(vf, "vfio");
    await binder.bind(vf, "kernel");
    assert.ok(!steps.some((step) => step.startsWith("keep")));
  }));

test("DriverBinder.bind() binds nothing where the kernel refuses to unbind", () =>
  withBinder({}, async ({ machine, binder, steps }) => {
    machine.faults.failWrite({ tree: "drivers", path: "igbvf/unbind", code: "EBUSY" });
    const fault = { kind: "unbind-refused", driver: "igbvf", code: "EBUSY" };
    assert.deepEqual(await faultOf(binder.bind(vf, "vfio")), fault);
    const back = [`driver_override "igbvf"`, String.raw`driver_override "\n"`, "bound to igbvf"];
    assert.deepEqual(steps, [...toVfio.slice(0, 2), ...back]);
  }));

test("DriverBinder.bind() restores VFIO with its override, and no driver where there was none", () =>
  withBinder({}, async ({ machine, binder, steps }) => {
    await binder.bind(vf, "vfio");
    steps.length = 0;
    machine.faults.failWrite({ tree: "drivers", path: "igbvf/bind", code: "EIO", times: 2 });
    const fault = { kind: "bind-refused", driver: "igbvf", code: "EIO" };
    assert.deepEqual(await faultOf(binder.bind(vf, "kernel")), fault);
    const failed = [`driver_override "igbvf"`, `igbvf/bind "${one}"`];
    const back = [`driver_override "vfio-pci"`, `vfio-pci/bind "${one}"`, "bound to vfio-pci"];
    assert.deepEqual(steps.splice(0), [failed[0], `vfio-pci/unbind "${one}"`, failed[1], ...back]);
    await machine.drivers.writeText("vfio-pci/unbind", one);
    assert.deepEqual(await faultOf(binder.bind(vf, "kernel")), fault);
    assert.deepEqual(steps, [...failed, String.raw`driver_override "\n"`, "bound to undefined"]);
  }));

test("DriverBinder.bind() says what the kernel refused, also where the driver cannot be read any more", () =>
  withBinder({}, async ({ machine, log }) => {
    let isBroken = false;
    const devices: HostFiles = {
      ...machine.devices,
      async readLink(path) {
        if (isBroken && path.endsWith("/driver")) throw new KernelError(`read ${path}`, 5); // EIO
        return await machine.devices.readLink(path);
      },
      async writeText(path, text, limit) {
        isBroken = true;
        await machine.devices.writeText(path, text, limit);
      },
    };
    machine.faults.failWrite({ tree: "devices", path: /driver_override$/, code: "EPERM" });
    const bound: unknown[] = [];
    const onBound = (_: unknown, driver: unknown) => bound.push(driver);
    const parts = { ...machine, devices, clock: systemClock, log, isManaged: () => true, onBound };
    const binder = new DriverBinder(parts);
    const fault = { kind: "bind-refused", driver: "vfio-pci", code: "EPERM" };
    assert.deepEqual(await faultOf(binder.bind(vf, "vfio")), fault);
    assert.deepEqual(bound, [undefined]);
  }));

test("DriverBinder.bind() refuses VFIO for a group that holds a device of another bus", () =>
  withBinder({}, async ({ machine, log }) => {
    const list = async (path: string) => [
      ...(await machine.devices.list(path)),
      ...(path.endsWith("/iommu_group/devices") ? ["fsl-mc.0"] : []),
    ];
    const devices = { ...machine.devices, list };
    const binder = new DriverBinder({ ...machine, devices, clock: systemClock, log, isManaged: () => true });
    const fault = { kind: "group-shared", group: 2, others: ["fsl-mc.0"] };
    assert.deepEqual(await faultOf(binder.bind(vf, "vfio")), fault);
    assert.equal(await binder.driverOf(one), "igbvf");
  }));

test("DriverBinder.netdevNow() chooses none of several network devices", () =>
  withBinder({}, async ({ machine, log }) => {
    const list = async (path: string) => (path.endsWith("/net") ? ["eth0", "eth1"] : await machine.devices.list(path));
    const devices = { ...machine.devices, list };
    const binder = new DriverBinder({ ...machine, devices, clock: systemClock, log, isManaged: () => true });
    assert.deepEqual(await faultOf(binder.netdevNow(one)), { kind: "several-netdevs", names: ["eth0", "eth1"] });
  }));

test("DriverBinder.bind() continues where another process has unbound the VF just then", () =>
  withBinder({}, async ({ machine, binder }) => {
    const before = machine.faults.beforeWrite.bind(machine.faults);
    machine.faults.beforeWrite = async (tree, path, text) => {
      await before(tree, path, text);
      if (path !== "igbvf/unbind") return;
      machine.faults.beforeWrite = before;
      await machine.drivers.writeText(path, text);
    };
    await binder.bind(vf, "vfio");
    assert.equal(await binder.driverOf(one), "vfio-pci");
  }));

test("DriverBinder.bind() says that a VF has no driver where the former one cannot be bound again", () =>
  withBinder({}, async ({ machine, binder, steps, log }) => {
    machine.faults.failWrite({ tree: "drivers", path: "vfio-pci/bind", code: "EBUSY" });
    machine.faults.failWrite({ tree: "drivers", path: "igbvf/bind", code: "EIO" });
    const fault = { kind: "bind-refused", driver: "vfio-pci", code: "EBUSY" };
    assert.deepEqual(await faultOf(binder.bind(vf, "vfio")), fault);
    assert.equal(steps.at(-1), "bound to undefined");
    assert.match(String(log.of("driver-not-restored")[0]?.["error"]), /EIO/);
  }));

for (const [which, path, written] of [
  ["unbinds", "igbvf/unbind", 2],
  ["binds", "vfio-pci/bind", 3],
] as const) {
  test(`DriverBinder.bind() writes nothing behind a write that ${which} and does not return`, async () => {
    const clock = new HandClock();
    await withBinder({ clock }, async ({ machine, binder, steps }) => {
      const letGo = machine.faults.stallWrite({ tree: "drivers", path });
      const stuck = faultOf(binder.bind(vf, "vfio"));
      await until(`${written} writes have begun`, () => steps.length >= written);
      await clock.pass(LIMIT_MS);
      assert.deepEqual(await stuck, STUCK);
      assert.deepEqual(steps.slice(0, -1), toVfio.slice(0, written));
      letGo();
    });
  });
}

test("DriverBinder.bind() takes a group to VFIO one VF at a time, the requested one first", async () => {
  for (const wanted of [one, two]) {
    await withBinder({ iommu: "pairs" }, async ({ machine, binder, steps }) => {
      const letGo = machine.faults.stallWrite({ tree: "drivers", path: "igbvf/unbind" });
      const both = [wanted, one, two].map((address) => binder.bind({ ...vf, address }, "vfio"));
      await until("the second write has begun", () => steps.length >= 2);
      await settled();
      assert.deepEqual([steps.length, binder.waiting], [2, 2]);
      letGo();
      await Promise.all(both);
      const bound = steps.filter((step) => step.startsWith("vfio-pci/bind"));
      assert.deepEqual(
        bound,
        [wanted, wanted === one ? two : one].map((address) => `vfio-pci/bind "${address}"`),
      );
    });
  }
});

test("DriverBinder.bind() lets VFs without an IOMMU not wait for each other", () =>
  withBinder({ iommu: "none" }, async ({ machine, binder, steps }) => {
    await binder.bind({ ...vf, address: two }, "kernel");
    for (const address of [one, two]) await machine.drivers.writeText("igbvf/unbind", address);
    const letGo = machine.faults.stallWrite({ tree: "drivers", path: "igbvf/bind", text: one });
    const stuck = binder.bind(vf, "kernel");
    await until("the second write has begun", () => steps.length >= 2);
    await binder.bind({ ...vf, address: two }, "kernel");
    letGo();
    await stuck;
  }));

test("DriverBinder.bind() whose caller leaves while it waits for its turn changes nothing", () =>
  withBinder({ iommu: "pairs" }, async ({ machine, binder, steps }) => {
    const letGo = machine.faults.stallWrite({ tree: "drivers", path: "igbvf/unbind" });
    const first = binder.bind(vf, "vfio");
    await until("the second write has begun", () => steps.length >= 2);
    const caller = new AbortController();
    const waiting = assert.rejects(binder.bind({ ...vf, address: two }, "kernel", caller.signal), /caller has gone/);
    await settled();
    caller.abort(new Error("caller has gone"));
    await waiting;
    letGo();
    await first;
    assert.equal(await binder.driverOf(two), "vfio-pci");
  }));

test("DriverBinder.bind() leaves a VF of the group that has no driver as it is", () =>
  withBinder({ iommu: "pairs" }, async ({ machine, binder }) => {
    await machine.drivers.writeText("igbvf/unbind", two);
    await binder.bind(vf, "vfio");
    assert.deepEqual([await binder.driverOf(one), await binder.driverOf(two)], ["vfio-pci", undefined]);
  }));

test("DriverBinder.bind() leaves the others of the group alone when the requested one's driver refuses", () =>
  withBinder({ iommu: "pairs" }, async ({ machine, binder }) => {
    machine.faults.failWrite({ tree: "drivers", path: "vfio-pci/bind", text: two, code: "EBUSY" });
    await assert.rejects(binder.bind({ ...vf, address: two }, "vfio"), { name: "DriverError" });
    assert.deepEqual([await binder.driverOf(one), await binder.driverOf(two)], ["igbvf", "igbvf"]);
  }));

test("DriverBinder.bind() to VFIO resolves when the group's node is there, and says so when it does not come", async () => {
  const clock = new HandClock();
  await withBinder({ clock }, async ({ machine, log }) => {
    let isThere = false;
    const vfio = { ...machine.vfio, exists: async () => isThere };
    const binder = new DriverBinder({ ...machine, vfio, clock, log, isManaged: () => true });
    let isBound = false;
    const first = binder.bind(vf, "vfio").then(() => {
      isBound = true;
    });
    await until("the VF is bound to vfio-pci", async () => (await binder.driverOf(one)) === "vfio-pci");
    await settled();
    assert.equal(isBound, false);
    isThere = true;
    machine.announce({ action: "add", subsystem: "vfio", devpath: "/devices/virtual/vfio/2", fields: {} });
    await first;
    isThere = false;
    const second = faultOf(binder.bind(vf, "vfio"));
    await settled();
    await clock.pass(LIMIT_MS);
    assert.deepEqual(await second, { kind: "no-vfio-node", group: 2 });
  });
});

test("VfioGroups.deviceOf() says that VFIO's own node is missing", () =>
  withBinder({}, async ({ machine, log }) => {
    const vfio: HostFiles = {
      ...machine.vfio,
      async deviceNumber(name) {
        if (name === "vfio") throw new KernelError("stat vfio", 2); // ENOENT
        return await machine.vfio.deviceNumber(name);
      },
    };
    const binder = new DriverBinder({ ...machine, vfio, clock: systemClock, log, isManaged: () => true });
    await binder.bind(vf, "vfio");
    assert.deepEqual(await faultOf(binder.vfio.deviceOf(one)), { kind: "no-vfio-container" });
  }));

const anew = [`driver_override "igbvf"`, `igbvf/unbind "${one}"`, `igbvf/bind "${one}"`];
const WITHOUT_OVERRIDE = String.raw`driver_override "\n"`;

test("DriverBinder.renew() unbinds the VF from its driver and binds it again", () =>
  withBinder({}, async ({ machine, binder, steps }) => {
    await binder.renew(vf);
    assert.deepEqual(steps.splice(0), [...anew, WITHOUT_OVERRIDE, "bound to igbvf"]);
    await machine.drivers.writeText("igbvf/unbind", one);
    await binder.renew(vf);
    assert.deepEqual(steps, [anew[0], anew[2], WITHOUT_OVERRIDE, "bound to igbvf"]);
  }));

test("DriverBinder.renew() leaves a VF that another driver has, and what is no VF", () =>
  withBinder({}, async ({ binder, steps }) => {
    await binder.bind(vf, "vfio");
    steps.length = 0;
    await binder.renew(vf);
    const address = parsePciAddress("0000:01:00.0");
    assert.deepEqual(await faultOf(binder.renew({ ...vf, address })), { kind: "not-virtual" });
    assert.deepEqual(steps, []);
    assert.equal(await binder.driverOf(one), "vfio-pci");
  }));

test("DriverBinder.renew() touches nothing that the host uses", () => {
  const refusal = new DriverError(one, { kind: "host-uses-it", how: "it has an address" });
  return withBinder({ refuseChange: () => Promise.reject(refusal) }, async ({ binder, steps }) => {
    assert.equal(await faultOf(binder.renew(vf)), refusal.fault);
    assert.deepEqual(steps, []);
  });
});

test("DriverBinder.renew() binds nothing where the kernel refuses to unbind, and continues from a VF without a driver", () =>
  withBinder({}, async ({ machine, binder, steps }) => {
    machine.faults.failWrite({ tree: "drivers", path: "igbvf/unbind", code: "EBUSY" });
    assert.deepEqual(await faultOf(binder.renew(vf)), { kind: "unbind-refused", driver: "igbvf", code: "EBUSY" });
    assert.deepEqual(steps.splice(0), [...anew.slice(0, 2), anew[0], WITHOUT_OVERRIDE, "bound to igbvf"]);
    machine.faults.failWrite({ tree: "drivers", path: "igbvf/bind", code: "EIO", times: 2 });
    assert.deepEqual(await faultOf(binder.renew(vf)), { kind: "bind-refused", driver: "igbvf", code: "EIO" });
    assert.equal(steps.at(-1), "bound to undefined");
    await binder.renew(vf);
    assert.equal(await binder.driverOf(one), "igbvf");
  }));

test("DriverBinder.renew() writes nothing behind a write that does not return", async () => {
  const clock = new HandClock();
  await withBinder({ clock }, async ({ machine, binder, steps }) => {
    const letGo = machine.faults.stallWrite({ tree: "drivers", path: "igbvf/unbind" });
    const stuck = faultOf(binder.renew(vf));
    await until("the second write has begun", () => steps.length >= 2);
    await clock.pass(LIMIT_MS);
    assert.deepEqual(await stuck, { kind: "write-stuck", driver: "igbvf" });
    assert.deepEqual(steps.slice(0, -1), anew.slice(0, 2));
    letGo();
  });
});

test("a write that hangs is repeated by no try before it has returned, and then the VF is bound again", async () => {
  const clock = new HandClock();
  await withBinder({ clock }, async ({ machine, binder, steps }) => {
    const letGo = machine.faults.stallWrite({ tree: "drivers", path: "igbvf/unbind" });
    const stuck = faultOf(binder.renew(vf));
    await until("the second write has begun", () => steps.length >= 2);
    await clock.pass(LIMIT_MS);
    const fault = { kind: "write-stuck", driver: "igbvf" };
    assert.deepEqual([await stuck, binder.hasStuckWrite(one), binder.hasStuckWrite(two)], [fault, true, false]);
    const { length } = steps;
    for (let tries = 0; tries < 10; tries += 1) {
      assert.deepEqual(await faultOf(binder.renew(vf)), fault);
      assert.deepEqual(await faultOf(binder.bind(vf, "kernel")), fault, "its driver is about to go");
      assert.deepEqual(await faultOf(binder.bind(vf, "vfio")), STUCK);
    }
    assert.equal(steps.length, length);
    await binder.renew({ ...vf, address: two });
    letGo();
    await until("the write has returned", () => !binder.hasStuckWrite(one));
    assert.equal(await binder.driverOf(one), undefined);
    await binder.bind(vf, "kernel");
    assert.equal(await binder.driverOf(one), "igbvf");
  });
});

test("DriverBinder.renew() takes its turn in the IOMMU group, and a caller may leave it", () =>
  withBinder({ iommu: "pairs" }, async ({ machine, binder, steps }) => {
    const letGo = machine.faults.stallWrite({ tree: "drivers", path: "igbvf/unbind" });
    const first = binder.renew(vf);
    await until("the second write has begun", () => steps.length >= 2);
    const second = binder.renew({ ...vf, address: two });
    const caller = new AbortController();
    const third = assert.rejects(binder.renew(vf, caller.signal), /caller has gone/);
    await settled();
    assert.deepEqual([steps.length, binder.waiting], [2, 2]);
    caller.abort(new Error("caller has gone"));
    await third;
    letGo();
    await Promise.all([first, second]);
    assert.deepEqual(
      steps.filter((step) => step.includes("bind ")).map((step) => step.replace(/ .*0[.]/, " .")),
      ['igbvf/unbind .0"', 'igbvf/bind .0"', 'igbvf/unbind .2"', 'igbvf/bind .2"'],
    );
  }));
