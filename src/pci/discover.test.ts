import assert from "node:assert/strict";
import { test } from "node:test";
import { type Machine, type MachineOptions, startMachine } from "../../sandbox/machine/machine.ts";
import { systemClock } from "../async/index.ts";
import type { HostFiles } from "../kernel/index.ts";
import { silentLog } from "../telemetry/index.ts";
import { discover } from "./discover.ts";
import { parsePfConfig } from "./pf-config.ts";
import { PfError } from "./pf-fault.ts";

const around = { clock: systemClock, log: silentLog };

interface Setup {
  readonly machine?: MachineOptions;
  /** Lines put behind those of each physical function. */
  readonly config?: string;
  readonly before?: (machine: Machine) => Promise<void> | void;
}

/** Discovers a machine, and gives what was found in a form that is easy to compare. */
async function find(setup: Setup = {}) {
  const machine = await startMachine({ vfsPerPf: 2, ...setup.machine });
  try {
    const text = machine.configText.replaceAll("[worker.domain]\n", `[worker.domain]\n${setup.config ?? ""}`);
    const config = parsePfConfig(text, "pci.config");
    await setup.before?.(machine);
    const found = await discover(config, { ...machine, ...around });
    return {
      ...found,
      indexes: found.pfs.map((pf) => pf.vfs.map(({ index, address }) => `${index} ${address}`)),
      faultKinds: found.faults.map(({ address, kind }) => `${address} ${kind}`),
      noteKinds: found.notes.map(({ address, kind }) => `${address} ${kind}`),
    };
  } finally {
    await machine.stop();
  }
}

/** File trees with some answers replaced. */
function overlay(
  files: HostFiles,
  texts: Readonly<Record<string, string>>,
  lists: Readonly<Record<string, string[]>>,
): HostFiles {
  return {
    ...files,
    readText: async (path) => texts[path] ?? files.readText(path),
    list: async (path) => lists[path] ?? files.list(path),
  };
}

test("discover() reads VFs with their real index, group, node, driver and resources", async () => {
  const { pfs, faults, notes } = await find();
  assert.deepEqual([faults, notes], [[], []]);
  assert.deepEqual(
    pfs.map(({ address, ifname, driver, numaNode, totalVfs }) => ({ address, ifname, driver, numaNode, totalVfs })),
    [
      { address: "0000:01:00.0", ifname: "enp1s0f0", driver: "igb", numaNode: 0, totalVfs: 2 },
      { address: "0000:02:00.0", ifname: "enp2s0f0", driver: "igb", numaNode: 1, totalVfs: 2 },
    ],
  );
  assert.deepEqual(pfs[1]?.vfs[1], {
    address: "0000:02:10.2",
    pf: "0000:02:00.0",
    index: 1,
    iommuGroup: 6,
    numaNode: 1,
    kernelDriver: "igbvf",
    resources: ["worker.domain/intel", "worker.domain/10G"],
    driver: "igbvf",
    vfioProblem: undefined,
  });
});

test("discover() numbers 256 VFs right, though names sort 10 before 2", async () => {
  const { pfs } = await find({ machine: { pfs: 1, vfsPerPf: 256 } });
  const vfs = pfs[0]?.vfs ?? [];
  assert.equal(vfs.length, 256);
  assert.ok(vfs.every(({ index, address }, place) => index === place && address === vfAddress(place)));
});

function vfAddress(index: number): string {
  const rid = 0x100 + 128 + index * 2;
  const hex = (value: number) => value.toString(16).padStart(2, "0");
  return `0000:${hex(rid >> 8)}:${hex((rid >> 3) & 31)}.${rid & 7}`;
}

test("discover() makes no VFs: it observes", async () => {
  const { pfs, faults, notes } = await find({ machine: { numVfs: 0 }, config: "    numVfs: 1\n" });
  assert.deepEqual(
    [pfs.map(({ vfs, totalVfs }) => [vfs.length, totalVfs]), faults, notes],
    [
      [
        [0, 2],
        [0, 2],
      ],
      [],
      [],
    ],
  );
});

test("discover() reports a number that differs from the file", async () => {
  const { indexes, noteKinds } = await find({ machine: { pfs: 1, vfsPerPf: 4, numVfs: 1 }, config: "    numVfs: 3\n" });
  assert.deepEqual([indexes, noteKinds], [[["0 0000:01:10.0"]], ["0000:01:00.0 vf-count-differs"]]);
});

test("discover() reports more VFs than the hardware has, and VFs the file lists wrongly", async () => {
  const { noteKinds } = await find({
    machine: { pfs: 1 },
    config: "    numVfs: 3\n    virtualFunctions: [{ address: 01:10.2, iommuGroup: 99 }, { address: 01:10.6 }]\n",
  });
  assert.deepEqual(noteKinds, [
    "0000:01:00.0 vf-count-differs",
    "0000:01:00.0 listed-vf-missing",
    "0000:01:00.0 listed-vf-missing",
  ]);
});

test("discover() notes nothing of a number that is right, nor of VFs listed before any is made, or without a group", async () => {
  const config = "    numVfs: 2\n    virtualFunctions: [{ address: 01:10.0 }]\n";
  for (const numVfs of [0, 2]) {
    const { noteKinds } = await find({ machine: { pfs: 1, numVfs }, config });
    assert.deepEqual(noteKinds, []);
  }
});

test("discover() knows no index of a network device that has none to be read", async () => {
  const machine = await startMachine({ pfs: 1, vfsPerPf: 1 });
  const config = parsePfConfig(machine.configText, "pci.config");
  const path = "0000:01:00.0/net/enp1s0f0/ifindex";
  const indexes = [];
  for (const texts of [{}, { [path]: "nonsense" }]) {
    const devices = overlay(machine.devices, texts, {});
    const { pfs } = await discover(config, { ...machine, ...around, devices });
    indexes.push(pfs[0]?.ifindex);
  }
  const expected = Number(await machine.devices.readText(path));
  await machine.stop();
  assert.deepEqual(indexes, [expected, undefined]);
});

test("discover() does without an IOMMU", async () => {
  const { pfs, faults } = await find({ machine: { pfs: 1, iommu: "none" } });
  assert.deepEqual([faults, pfs[0]?.vfs.map(({ iommuGroup }) => iommuGroup)], [[], [undefined, undefined]]);
});

test("discover() notes VFs whose group holds a device that is not ours", async () => {
  const { pfs } = await find({ machine: { pfs: 1, iommu: "with-pf" } });
  assert.deepEqual(
    pfs[0]?.vfs.map(({ vfioProblem }) => vfioProblem),
    Array(2).fill("its IOMMU group 1 also holds 0000:01:00.0"),
  );
});

const bad: readonly (Setup & { readonly says: string; readonly kind: string })[] = [
  {
    says: "that was taken out",
    kind: "missing",
    before: async (machine) => void (await machine.removePf("0000:01:00.0")),
  },
  {
    says: "without a driver",
    kind: "no-driver",
    before: ({ drivers }) => drivers.writeText("igb/unbind", "0000:01:00.0"),
  },
];
for (const { says, kind, ...setup } of bad) {
  test(`discover() reports a physical function ${says}, and uses the others`, async () => {
    const { pfs, faultKinds } = await find(setup);
    assert.deepEqual(faultKinds, [`0000:01:00.0 ${kind}`]);
    assert.deepEqual(
      pfs.map(({ address, vfs }) => `${address} ${vfs.length}`),
      ["0000:02:00.0 2"],
    );
  });
}

test("discover() reports a virtual function that is configured as a physical one, and a device without SR-IOV", async () => {
  const machine = await startMachine({ pfs: 1, vfsPerPf: 1 });
  const config = parsePfConfig(machine.configText.replace("01:00.0", "01:10.0"), "pci.config");
  const { faults } = await discover(config, { ...machine, ...around });
  await machine.stop();
  assert.deepEqual(
    faults.map(({ kind }) => kind),
    ["is-virtual"],
  );
});

test("discover() passes over representors, and refuses to choose among equal network devices", async () => {
  const machine = await startMachine({ pfs: 1, vfsPerPf: 1 });
  const pf = "0000:01:00.0";
  const config = parsePfConfig(machine.configText, "pci.config");
  const common = { ...machine, ...around };
  const lists = { [`${pf}/net`]: ["enp1s0f0", "eth7"] };
  const two = await discover(config, { ...common, devices: overlay(machine.devices, {}, lists) });
  assert.deepEqual(
    two.faults.map(({ kind }) => kind),
    ["several-netdevs"],
  );
  const ports = { [`${pf}/net/eth7/phys_port_name`]: "pf0vf0" };
  const one = await discover(config, { ...common, devices: overlay(machine.devices, ports, lists) });
  assert.deepEqual(
    one.pfs.map(({ ifname }) => ifname),
    ["enp1s0f0"],
  );
  await machine.stop();
});

test("discover() notes drivers that differ from the file or are not loaded", async () => {
  const machine = await startMachine({ pfs: 1, vfsPerPf: 1 });
  const text = machine.configText.replace("Driver: igb\n", "Driver: ixgbe\n").replace("igbvf", "iavf");
  const { notes } = await discover(parsePfConfig(text, "f"), { ...machine, ...around });
  await machine.stop();
  assert.deepEqual(
    notes.map(({ message }) => message),
    [
      "0000:01:00.0 is bound to igb, the configuration says ixgbe",
      "0000:01:00.0: driver iavf is not loaded; run: modprobe iavf",
    ],
  );
});

test("discover() survives adapters that give nonsense", async () => {
  const machine = await startMachine({ vfsPerPf: 1 });
  const devices: HostFiles = {
    ...machine.devices,
    readLink: async (path) => (path === "0000:01:00.0/virtfn0" ? "../nonsense" : machine.devices.readLink(path)),
  };
  const config = parsePfConfig(machine.configText, "pci.config");
  const { pfs, faults } = await discover(config, { ...machine, ...around, devices });
  await machine.stop();
  assert.deepEqual([pfs.length, faults.map(({ kind }) => kind)], [1, ["unreadable"]]);
});

test("discover() takes nothing of a PF whose link is not its own, and all of the other one", async () => {
  const machine = await startMachine({ vfsPerPf: 2 });
  try {
    const queried: string[] = [];
    const verifyLink = async (pf: string) => {
      queried.push(pf);
      if (pf === "0000:01:00.0") throw new PfError("other-namespace", "its link is another one");
    };
    const config = parsePfConfig(machine.configText, "pci.config");
    const { pfs, faults } = await discover(config, { ...machine, ...around, verifyLink });
    assert.deepEqual(queried.sort(), ["0000:01:00.0", "0000:02:00.0"]);
    assert.deepEqual(
      faults.map(({ address, kind }) => [address, kind]),
      [["0000:01:00.0", "other-namespace"]],
    );
    assert.deepEqual(
      pfs.map(({ address }) => address),
      ["0000:02:00.0"],
    );
  } finally {
    await machine.stop();
  }
});
