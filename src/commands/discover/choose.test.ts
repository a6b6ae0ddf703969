import assert from "node:assert/strict";
import test from "node:test";
import { parsePciAddress, parsePfConfig } from "../../pci/index.ts";
import type { Adapter, AdapterLink } from "./adapter.ts";
import { choosePfs } from "./choose.ts";
import { configText } from "./write-config.ts";

const link: AdapterLink = { ifname: "ens6f0", isUp: true, speedMbps: 25_000, master: undefined };
const port: Adapter = {
  address: parsePciAddress("0000:3b:00.0"),
  classCode: 0x020000,
  vendorId: 0x8086,
  deviceId: 0x1592,
  driver: "ice",
  vfDeviceId: 0x1889,
  numaNode: 0,
  isVirtual: false,
  totalVfs: 64,
  vfs: [],
  links: [link],
  representorCount: 0,
};
const vfOf = (driver: string | undefined) => ({ address: parsePciAddress("0000:3b:01.0"), driver });

function choose(adapter: Partial<Adapter>, { defaultRoutes = [] as string[], serviceDomains = ["a.b"] } = {}) {
  const node = { adapters: [{ ...port, ...adapter }], defaultRoutes };
  return choosePfs(node, { serviceDomains, only: [] });
}

const left: { says: string; adapter: Partial<Adapter>; why: RegExp }[] = [
  { says: "no network adapter", adapter: { classCode: 0x010802 }, why: /no network adapter/ },
  { says: "one without SR-IOV", adapter: { totalVfs: undefined }, why: /offers no virtual functions/ },
  { says: "one whose firmware allows none", adapter: { totalVfs: 0 }, why: /firmware allows no/ },
  { says: "one without a driver", adapter: { driver: undefined, links: [] }, why: /no driver/ },
  { says: "one that is given away as a whole", adapter: { driver: "vfio-pci", links: [] }, why: /vfio-pci as a whole/ },
  { says: "one that is not seen from here", adapter: { links: [] }, why: /no network device here/ },
  {
    says: "one with several ports",
    adapter: { links: [link, { ...link, ifname: "ens6f1" }] },
    why: /several network devices: ens6f0, ens6f1/,
  },
  { says: "one with an unknown driver", adapter: { driver: "newnic" }, why: /is not known \(newnic makes them\)/ },
];
for (const { says, adapter, why } of left) {
  test(`choosePfs() leaves out ${says}, and says why`, () => {
    const { chosen, leftOut } = choose(adapter);
    assert.deepEqual(chosen, []);
    assert.match(leftOut[0]?.why ?? "", why);
  });
}

const drivers: { says: string; adapter: Partial<Adapter>; driver: string }[] = [
  { says: "the one that goes with the card's", adapter: {}, driver: "iavf" },
  { says: "the one that VFs are bound to", adapter: { vfs: [vfOf("ice_vf_next")] }, driver: "ice_vf_next" },
  { says: "not the one of a VFIO client", adapter: { vfs: [vfOf("vfio-pci"), vfOf(undefined)] }, driver: "iavf" },
  { says: "the card's own where it serves both", adapter: { driver: "mlx5_core" }, driver: "mlx5_core" },
  {
    says: "what is seen even where the card's is not known",
    adapter: { driver: "newnic", vfs: [vfOf("newnicvf")] },
    driver: "newnicvf",
  },
];
for (const { says, adapter, driver } of drivers) {
  test(`choosePfs() names as driver of virtual functions ${says}`, () => {
    assert.equal(choose(adapter).chosen[0]?.vfKernelDriver.value, driver);
  });
}

const warned: { says: string; adapter: Partial<Adapter>; defaultRoutes?: string[]; line: RegExp }[] = [
  { says: "a link that is down", adapter: { links: [{ ...link, isUp: false }] }, line: /ip link set ens6f0 up/ },
  { says: "the node's own traffic", adapter: {}, defaultRoutes: ["ens6f0"], line: /own traffic leaves by it/ },
  {
    says: "the node's own traffic by a bond",
    adapter: { links: [{ ...link, master: "bond0" }] },
    defaultRoutes: ["bond0"],
    line: /own traffic leaves by it/,
  },
  { says: "a bond", adapter: { links: [{ ...link, master: "bond0" }] }, line: /a port of bond0/ },
  { says: "switch mode", adapter: { representorCount: 4 }, line: /switchdev mode \(4 representors\).*mode legacy/ },
];
for (const { says, adapter, defaultRoutes = [], line } of warned) {
  test(`choosePfs() warns of ${says}`, () => {
    assert.match(choose(adapter, { defaultRoutes }).chosen[0]?.says.join("\n") ?? "", line);
    assert.doesNotMatch(choose({}).chosen[0]?.says.join("\n") ?? "", line);
  });
}

const speeds = [
  { speedMbps: 100, capabilities: ["intel", "100M"] },
  { speedMbps: 2500, capabilities: ["intel", "2.5G"] },
  { speedMbps: 100_000, capabilities: ["intel", "100G"] },
  { speedMbps: undefined, capabilities: ["intel"] },
];
for (const { speedMbps, capabilities } of speeds) {
  test(`choosePfs() makes ${capabilities.join(" and ")} of ${speedMbps} Mbit/s`, () => {
    const { chosen } = choose({ links: [{ ...link, speedMbps }] });
    assert.deepEqual(
      chosen[0]?.capabilities.map(({ value }) => value),
      capabilities,
    );
  });
}

test("choosePfs() takes only what was requested, by address or name, and reports what is not there", () => {
  const second = { ...port, address: parsePciAddress("0000:3b:00.1"), links: [{ ...link, ifname: "ens6f1" }] };
  const third = { ...port, address: parsePciAddress("0000:5e:00.0"), links: [{ ...link, ifname: "ens7f0" }] };
  const node = { adapters: [port, second, third], defaultRoutes: [] };
  const { chosen, leftOut, unknown } = choosePfs(node, { serviceDomains: [], only: ["ens6f1", third.address, "eth9"] });
  assert.deepEqual(
    chosen.map(({ address }) => address),
    [second.address, third.address],
  );
  assert.deepEqual(
    leftOut.map(({ address, why }) => [address, why]),
    [[port.address, "not asked for"]],
  );
  assert.deepEqual(unknown, ["eth9"]);
});

test("configText() writes what the parser reads, whatever the names are", () => {
  const domains = ["1.5", "007", "on", "worker.domain"];
  const text = configText(choose({}, { serviceDomains: domains }), ["a heading ".repeat(30)]);
  const [entry] = parsePfConfig(text, "discovered").physicalFunctions;
  assert.deepEqual(
    [entry?.address, entry?.pfKernelDriver, entry?.vfKernelDriver, entry?.capabilities, entry?.serviceDomains],
    ["0000:3b:00.0", "ice", "iavf", ["intel", "25G"], domains],
  );
  assert.ok(text.split("\n").every((line) => line.length <= 110));
});

test("configText() reports how many VFs would be made, in a line that can be switched on", () => {
  const text = configText(choose({}), []);
  const switchedOn = parsePfConfig(text.replace("# numVfs: 64", "numVfs: 8"), "discovered");
  assert.deepEqual(
    [switchedOn.physicalFunctions[0]?.numVfs, choose({ vfs: [vfOf("iavf")] }).chosen[0]?.mostVfs],
    [8, undefined],
  );
});

test("configText() writes a node without any as a valid file, with the reasons", () => {
  const text = configText(choose({ totalVfs: 0 }), ["Heading"]);
  assert.deepEqual(parsePfConfig(text, "discovered").physicalFunctions, []);
  assert.match(text, /^# Left out:\n# {3}0000:3b:00.0 {2}ens6f0 {2}the card has SR-IOV/m);
});
