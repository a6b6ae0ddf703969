import assert from "node:assert/strict";
import { test } from "node:test";
import type { VfFacts, VfUse } from "../pci/index.ts";
import { type PciAddress, parsePciAddress } from "../pci/index.ts";
import { Inventory } from "./inventory.ts";
import { InventoryError } from "./inventory-fault.ts";

const BROKEN = { code: "write-stuck", error: "broken" } as const;
const namespace = "6ba7b810-9dad-11d1-80b4-00c04fd430c8";

interface PfSpec {
  readonly pf: string;
  readonly resources: readonly string[];
  /** Address and IOMMU group; no group means no IOMMU. */
  readonly vfs: readonly (readonly [address: string, group?: number])[];
}

function factsOf({ pf, resources, vfs }: PfSpec): VfFacts[] {
  return vfs.map(([address, iommuGroup], index) => ({
    address: parsePciAddress(address),
    pf: parsePciAddress(pf),
    index,
    iommuGroup,
    numaNode: undefined,
    kernelDriver: "iavf",
    resources,
    driver: undefined,
  }));
}

function inventoryOf(...pfs: readonly PfSpec[]): Inventory {
  const inventory = new Inventory(namespace);
  for (const pf of pfs) inventory.sync(parsePciAddress(pf.pf), factsOf(pf));
  return inventory;
}

/** The resource pool of upstream's own tests: three physical functions, two groups that span them. */
const upstream: readonly PfSpec[] = [
  { pf: "01:00.0", resources: ["d1/intel", "d1/10G"], vfs: [["01:00.1", 1]] },
  {
    pf: "02:00.0",
    resources: ["d2/intel", "d2/10G"],
    vfs: [
      ["02:00.1", 1],
      ["02:00.2", 2],
    ],
  },
  {
    pf: "03:00.0",
    resources: ["d2/intel", "d2/20G"],
    vfs: [
      ["03:00.1", 1],
      ["03:00.2", 1],
      ["03:00.3", 1],
    ],
  },
];

function idOf(inventory: Inventory, resource: string, address: string): string {
  const found = inventory.devicesOf(resource).find((device) => device.address === parsePciAddress(address));
  assert.ok(found, `no id of ${resource} stands for ${address}`);
  return found.id;
}

function healthyCounts(inventory: Inventory): Record<string, number> {
  return Object.fromEntries(
    inventory.resources.map((name) => [name, inventory.devicesOf(name).filter(({ healthy }) => healthy).length]),
  );
}

function faultOf(act: () => unknown): string {
  try {
    act();
  } catch (error) {
    assert.ok(error instanceof InventoryError);
    return error.fault.kind;
  }
  return "none";
}

test("Inventory.devicesOf() counts as upstream's token pool does: shared names add up, used VFs leave siblings out", () => {
  const inventory = inventoryOf(
    { pf: "01:00.0", resources: ["d1/intel", "d1/10G"], vfs: [["01:00.1"]] },
    {
      pf: "02:00.0",
      resources: ["d1/intel", "d1/20G", "d2/intel", "d2/20G"],
      vfs: [["02:00.1"], ["02:00.2"], ["02:00.3"]],
    },
  );
  assert.deepEqual(healthyCounts(inventory), {
    "d1/intel": 4,
    "d1/10G": 1,
    "d1/20G": 3,
    "d2/intel": 3,
    "d2/20G": 3,
  });
  const ids = inventory.devicesOf("d2/20G").map(({ id }) => id);
  for (const [index, tokenId] of ids.entries()) {
    inventory.reserveToken(tokenId);
    inventory.take({ connectionId: `c${index}`, tokenId, use: "kernel" });
  }
  assert.deepEqual(healthyCounts(inventory), { "d1/intel": 1, "d1/10G": 1, "d1/20G": 0, "d2/intel": 0, "d2/20G": 3 });
  inventory.release("c0");
  inventory.releaseToken(ids[0] ?? "");
  assert.deepEqual(healthyCounts(inventory), { "d1/intel": 2, "d1/10G": 1, "d1/20G": 1, "d2/intel": 1, "d2/20G": 3 });
});

test("Inventory.take() keeps VFIO and kernel drivers in groups of their own, and one pod's VFIO from another's", () => {
  const inventory = inventoryOf(...upstream);
  const t1 = idOf(inventory, "d1/intel", "01:00.1");
  const t2 = idOf(inventory, "d2/intel", "02:00.1");
  const t3 = idOf(inventory, "d2/intel", "03:00.1");
  assert.equal(inventory.take({ connectionId: "c1", tokenId: t1, use: "vfio" }).address, "0000:01:00.1");
  assert.equal(inventory.take({ connectionId: "c1", tokenId: t1, use: "vfio" }).address, "0000:01:00.1");
  // Group 1 serves VFIO now, so the token's own VF will not do; 02:00.2 in group 2 takes its place.
  assert.equal(inventory.take({ connectionId: "c2", tokenId: t2, use: "kernel" }).address, "0000:02:00.2");
  assert.equal(
    faultOf(() => inventory.take({ connectionId: "c3", tokenId: t3, use: "kernel" })),
    "no-free-vf",
  );
  assert.equal(
    faultOf(() => inventory.take({ connectionId: "c3", tokenId: t3, use: "vfio" })),
    "no-free-vf",
  );
  inventory.release("c2");
  assert.equal(inventory.take({ connectionId: "c3", tokenId: t3, use: "kernel" }).address, "0000:02:00.2");
});

test("Inventory.take() lets connections of one pod share a group under VFIO", () => {
  const inventory = inventoryOf(...upstream);
  const t1 = idOf(inventory, "d2/20G", "03:00.1");
  const t2 = idOf(inventory, "d2/intel", "02:00.2");
  inventory.take({ connectionId: "c1", tokenId: t1, use: "vfio", owner: "pod" });
  inventory.raise(parsePciAddress("02:00.2"), BROKEN);
  const second = inventory.take({ connectionId: "c2", tokenId: t2, use: "vfio", owner: "pod" });
  assert.equal(second.address, "0000:02:00.1");
  // Not with a kernel driver beside: a group is either VFIO's or the kernel's, also within one pod.
  const t3 = idOf(inventory, "d2/20G", "03:00.2");
  assert.equal(
    faultOf(() => inventory.take({ connectionId: "c3", tokenId: t3, use: "kernel", owner: "pod" })),
    "no-free-vf",
  );
});

test("Inventory.take() prefers, among substitutes, the physical function with more free ones, then the lower address", () => {
  const inventory = inventoryOf(
    {
      pf: "01:00.0",
      resources: ["d/x"],
      vfs: [
        ["01:00.1", 1],
        ["01:00.2", 2],
      ],
    },
    {
      pf: "02:00.0",
      resources: ["d/x"],
      vfs: [
        ["02:00.1", 3],
        ["02:00.2", 4],
        ["02:00.3", 5],
      ],
    },
  );
  const tokenId = idOf(inventory, "d/x", "01:00.1");
  inventory.raise(parsePciAddress("01:00.1"), BROKEN);
  assert.equal(inventory.take({ connectionId: "c", tokenId, use: "vfio" }).address, "0000:02:00.1");
});

test("Inventory.take() says what keeps every VF back", () => {
  const inventory = inventoryOf({ pf: "01:00.0", resources: ["d/x"], vfs: [["01:00.1"], ["01:00.2"]] });
  inventory.raise(parsePciAddress("01:00.2"), BROKEN);
  const tokenId = idOf(inventory, "d/x", "01:00.1");
  assert.throws(() => inventory.take({ connectionId: "c", tokenId, use: "vfio" }), {
    message: "Cannot find a virtual function for d/x as vfio: of 2, 1 without an IOMMU group, 1 quarantined",
  });
});

test("Inventory.raise() of what quarantines a VF keeps its IOMMU group from VFIO, which takes a group as a whole", () => {
  const vfs = [
    ["01:00.1", 1],
    ["01:00.2", 1],
    ["01:00.3", 2],
  ] as const;
  const inventory = inventoryOf({ pf: "01:00.0", resources: ["d/x"], vfs });
  const tokenId = idOf(inventory, "d/x", "01:00.2");
  inventory.raise(parsePciAddress("01:00.1"), { code: "driver-binding" });
  assert.equal(inventory.take({ connectionId: "c1", tokenId, use: "vfio" }).address, "0000:01:00.3");
  assert.throws(
    () => inventory.take({ connectionId: "c2", tokenId: idOf(inventory, "d/x", "01:00.2"), use: "vfio" }),
    /in an IOMMU group of which 0000:01:00.1 is quarantined/,
  );
  inventory.release("c1");
  assert.equal(inventory.take({ connectionId: "c3", tokenId, use: "kernel" }).address, "0000:01:00.2");
});

test("Inventory.sync() that has lost a VF which a pod was given keeps no other one of its IOMMU group from VFIO", () => {
  const pf = parsePciAddress("01:00.0");
  const vfs = [
    ["01:00.1", 1],
    ["01:00.2", 1],
  ] as const;
  const spec: PfSpec = { pf, resources: ["d/x"], vfs };
  const inventory = inventoryOf(spec);
  inventory.reserveToken(idOf(inventory, "d/x", "01:00.1"));
  const tokenId = idOf(inventory, "d/x", "01:00.2");
  inventory.sync(pf, factsOf(spec).slice(1));
  assert.equal(inventory.get(parsePciAddress("01:00.1"))?.state, "quarantined");
  assert.equal(inventory.take({ connectionId: "c1", tokenId, use: "vfio" }).address, "0000:01:00.2");
});

test("Inventory.raise() of the host's use keeps a VF from pods, its group from VFIO, and nothing from who holds it", () => {
  const vfs = [
    ["01:00.1", 1],
    ["01:00.2", 1],
    ["01:00.3", 2],
  ] as const;
  const inventory = inventoryOf({ pf: "01:00.0", resources: ["d/x"], vfs });
  const [first, second, third] = ["01:00.1", "01:00.2", "01:00.3"].map((address) => idOf(inventory, "d/x", address));
  const take = (tokenId: string | undefined, use: VfUse) =>
    inventory.take({ connectionId: `${use} ${tokenId}`, tokenId: tokenId ?? "", use });
  inventory.raise(parsePciAddress("01:00.1"), { code: "host-use", how: "v0 has address 10.0.0.9/24" });
  assert.deepEqual(healthyCounts(inventory), { "d/x": 2 });
  assert.equal(inventory.get(parsePciAddress("01:00.1"))?.problem, "v0 has address 10.0.0.9/24");
  const held = take(third, "kernel");
  inventory.raise(held.address, { code: "host-use", how: "v2 has address 10.0.0.9/24" });
  assert.deepEqual([inventory.get(held.address)?.conditions, inventory.get(held.address)?.problem], [[], undefined]);
  assert.throws(() => take(second, "vfio"), {
    message:
      "Cannot find a virtual function for d/x as vfio: of 3, 1 withheld, for the host uses it (0000:01:00.1: v0 has address 10.0.0.9/24), 1 in an IOMMU group of which the host uses 0000:01:00.1 (v0 has address 10.0.0.9/24), 1 in use",
  });
  assert.equal(take(first, "kernel").address, "0000:01:00.2", "another one of the resource");
  inventory.clear(parsePciAddress("01:00.1"), "host-use");
  assert.equal(take(second, "kernel").address, "0000:01:00.1");
});

test("Inventory.take() swaps the reservations, so that every pod with a token still finds a VF", () => {
  const inventory = inventoryOf({ pf: "01:00.0", resources: ["d/x", "d/y"], vfs: [["01:00.1"], ["01:00.2"]] });
  const [a, b] = [idOf(inventory, "d/x", "01:00.1"), idOf(inventory, "d/x", "01:00.2")];
  inventory.reserveToken(a);
  inventory.raise(parsePciAddress("01:00.1"), BROKEN);
  assert.equal(inventory.take({ connectionId: "ca", tokenId: a, use: "kernel" }).address, "0000:01:00.2");
  assert.equal(
    faultOf(() => inventory.reserveToken(b)),
    "no-free-vf",
  );
  inventory.clear(parsePciAddress("01:00.1"), "write-stuck");
  assert.equal(inventory.reserveToken(b).address, "0000:01:00.1");
  inventory.release("ca");
  inventory.releaseToken(a);
  inventory.releaseToken(b);
  assert.equal(idOf(inventory, "d/x", "01:00.1"), a);
});

test("Inventory.take() gives a token's VF to one connection only, and a connection one VF only", () => {
  const inventory = inventoryOf({
    pf: "01:00.0",
    resources: ["d/x"],
    vfs: [
      ["01:00.1", 1],
      ["01:00.2", 2],
    ],
  });
  const [a, b] = [idOf(inventory, "d/x", "01:00.1"), idOf(inventory, "d/x", "01:00.2")];
  inventory.take({ connectionId: "c1", tokenId: a, use: "kernel" });
  assert.equal(
    faultOf(() => inventory.take({ connectionId: "c2", tokenId: a, use: "kernel" })),
    "token-in-use",
  );
  assert.equal(
    faultOf(() => inventory.take({ connectionId: "c1", tokenId: a, use: "vfio" })),
    "connection-holds-vf",
  );
  assert.equal(
    faultOf(() => inventory.take({ connectionId: "c1", tokenId: b, use: "kernel" })),
    "connection-holds-vf",
  );
  assert.equal(
    faultOf(() => inventory.take({ connectionId: "c1", tokenId: "sriov-?", use: "kernel" })),
    "unknown-token",
  );
});

test("Inventory.reserveToken() names the connection of an earlier pod that still holds the VF", () => {
  const inventory = inventoryOf({ pf: "01:00.0", resources: ["d/x"], vfs: [["01:00.1"]] });
  const tokenId = idOf(inventory, "d/x", "01:00.1");
  inventory.reserveToken(tokenId);
  inventory.take({ connectionId: "old", tokenId, use: "kernel" });
  inventory.setState("old", "ready");
  assert.deepEqual(inventory.releaseToken(tokenId), { address: "0000:01:00.1", heldBy: "old", isNew: true });
  assert.deepEqual(healthyCounts(inventory), { "d/x": 0 });
  assert.deepEqual(inventory.reserveToken(tokenId), { address: "0000:01:00.1", heldBy: "old", isNew: true });
  inventory.setState("old", "reclaiming");
  inventory.release("old");
  assert.equal(inventory.get(parsePciAddress("01:00.1"))?.state, "reserved");
});

test("Inventory.devicesOf() turns siblings of an allocated id unhealthy, never an id that is itself allocated", () => {
  const inventory = inventoryOf({ pf: "01:00.0", resources: ["d/x", "d/y"], vfs: [["01:00.1"], ["01:00.2"]] });
  const x1 = idOf(inventory, "d/x", "01:00.1");
  const y1 = idOf(inventory, "d/y", "01:00.1");
  inventory.reserveToken(x1);
  assert.deepEqual(
    inventory.devicesOf("d/y").map(({ healthy }) => healthy),
    [false, true],
  );
  assert.deepEqual(
    inventory.devicesOf("d/x").map(({ healthy }) => healthy),
    [true, true],
  );
  // Kubelet had not heard of it yet and gives the sibling out: the other VF takes its place.
  assert.equal(inventory.reserveToken(y1).address, "0000:01:00.2");
  assert.deepEqual(healthyCounts(inventory), { "d/x": 1, "d/y": 1 });
});

test("Inventory.adoptToken() keeps the id of an older forwarder until its pod is gone", () => {
  const inventory = inventoryOf({ pf: "01:00.0", resources: ["d/x"], vfs: [["01:00.1"], ["01:00.2"]] });
  inventory.adoptToken("sriov-old", "d/x");
  assert.deepEqual(healthyCounts(inventory), { "d/x": 2 });
  assert.equal(inventory.devicesOf("d/x").length, 3);
  assert.equal(inventory.take({ connectionId: "c", tokenId: "sriov-old", use: "kernel" }).address, "0000:01:00.1");
  inventory.release("c");
  inventory.releaseToken("sriov-old");
  assert.equal(inventory.devicesOf("d/x").length, 2);
  assert.deepEqual(healthyCounts(inventory), { "d/x": 2 });
});

test("Inventory.sync() takes a token that a pod had before its VF came for that VF's own", () => {
  const early = inventoryOf({ pf: "02:00.0", resources: ["d/x"], vfs: [["02:00.1"]] });
  const id = idOf(early, "d/x", "02:00.1");
  const inventory = inventoryOf({ pf: "01:00.0", resources: ["d/x"], vfs: [["01:00.1"], ["01:00.2"]] });
  inventory.adoptToken(id, "d/x");
  assert.deepEqual(healthyCounts(inventory), { "d/x": 2 }, "its pod may come for a VF");
  inventory.sync(parsePciAddress("02:00.0"), factsOf({ pf: "02:00.0", resources: ["d/x"], vfs: [["02:00.1"]] }));
  assert.equal(inventory.devicesOf("d/x").length, 3);
  const address = parsePciAddress("02:00.1");
  inventory.adopt({ connectionId: "c", tokenId: id, address, use: "kernel", state: "preparing" });
  assert.deepEqual(healthyCounts(inventory), { "d/x": 3 }, "that one is free again");
  inventory.release("c");
  inventory.releaseToken(id);
  assert.deepEqual(
    inventory.devicesOf("d/x").map((device) => [device.id === id, device.healthy, device.address === address]),
    [
      [false, true, false],
      [false, true, false],
      [true, true, true],
    ],
  );
});

test("Inventory.adopt() believes the node: the token is assigned to the VF its pod has", () => {
  const inventory = inventoryOf({ pf: "01:00.0", resources: ["d/x"], vfs: [["01:00.1"], ["01:00.2"]] });
  const [a, b] = [idOf(inventory, "d/x", "01:00.1"), idOf(inventory, "d/x", "01:00.2")];
  inventory.reserveToken(a);
  inventory.reserveToken(b);
  const address = parsePciAddress("01:00.2");
  const adopted = inventory.adopt({ connectionId: "c", tokenId: a, address, use: "kernel", state: "ready" });
  assert.deepEqual([adopted.state, adopted.tokenId, adopted.use], ["ready", a, "kernel"]);
  assert.equal(inventory.take({ connectionId: "d", tokenId: b, use: "kernel" }).address, "0000:01:00.1");
  const again = { connectionId: "e", tokenId: a, address, use: "kernel", state: "ready" } as const;
  assert.equal(
    faultOf(() => inventory.adopt(again)),
    "vf-in-use",
  );
});

test("Inventory.adopt() gives the token that it displaces another VF, if a pod has that token", () => {
  const inventory = inventoryOf({ pf: "01:00.0", resources: ["d/x"], vfs: [["01:00.1"], ["01:00.2"]] });
  const [a, b] = [idOf(inventory, "d/x", "01:00.1"), idOf(inventory, "d/x", "01:00.2")];
  const [one, two] = [parsePciAddress("01:00.1"), parsePciAddress("01:00.2")];
  const states = () => [one, two].map((address) => [inventory.get(address)?.state, inventory.get(address)?.tokenId]);
  inventory.reserveToken(b);
  inventory.adopt({ connectionId: "c", tokenId: a, address: two, use: "kernel", state: "ready" });
  assert.deepEqual(states(), [
    ["reserved", b],
    ["ready", a],
  ]);
});

test("Inventory.adopt() reserves nothing for a token that no pod has", () => {
  const inventory = inventoryOf({ pf: "01:00.0", resources: ["d/x"], vfs: [["01:00.1"], ["01:00.2"]] });
  const [a, b] = [idOf(inventory, "d/x", "01:00.1"), idOf(inventory, "d/x", "01:00.2")];
  const [one, two] = [parsePciAddress("01:00.1"), parsePciAddress("01:00.2")];
  inventory.take({ connectionId: "c", tokenId: a, use: "kernel" });
  inventory.adopt({ connectionId: "c", tokenId: b, address: one, use: "kernel", state: "ready" });
  assert.deepEqual([inventory.get(one)?.tokenId, inventory.get(two)?.state], [b, "idle"]);
});

test("Inventory.raise() lets several conditions be so at once, and clear() ends its own only", () => {
  const inventory = inventoryOf({ pf: "01:00.0", resources: ["d/x"], vfs: [["01:00.1"]] });
  const address = parsePciAddress("01:00.1");
  const seen = () => {
    const { state, problem, conditions = [] } = inventory.get(address) ?? {};
    return [state, problem, conditions.map(({ code }) => code)];
  };
  const failed = { code: "bind-failed", error: "it failed" } as const;
  assert.equal(inventory.raise(address, failed), true);
  assert.equal(inventory.raise(address, { code: "contradicts-journal", error: "it was out" }), true);
  assert.equal(inventory.raise(address, BROKEN), true);
  assert.deepEqual(seen(), ["quarantined", "it was out", ["contradicts-journal", "write-stuck", "bind-failed"]]);
  inventory.clear(address, "contradicts-journal");
  assert.deepEqual(seen(), ["quarantined", "broken", ["write-stuck", "bind-failed"]]);
  inventory.clear(address, "write-stuck");
  assert.deepEqual(seen(), ["idle", "it failed", ["bind-failed"]]);
  assert.equal(inventory.raise(address, { ...failed }), false, "it looks the same");
  assert.equal(inventory.clear(address, failed), false, "it was raised again since");
  assert.deepEqual([inventory.clear(address, "bind-failed"), inventory.clear(address, "bind-failed")], [true, false]);
  assert.deepEqual(seen(), ["idle", undefined, []]);
});

test("Inventory.sync() notes that a VF has lost its IOMMU group, even where it was away meanwhile", () => {
  const inventory = inventoryOf(...upstream);
  const [pf, address] = [parsePciAddress("01:00.0"), parsePciAddress("01:00.1")];
  const without = factsOf({ pf: "01:00.0", resources: ["d1/intel", "d1/10G"], vfs: [["01:00.1"]] });
  inventory.sync(pf, []);
  inventory.sync(pf, without);
  assert.match(inventory.get(address)?.problem ?? "", /it has lost its IOMMU group 1/);
  assert.equal(inventory.get(address)?.state, "idle");
  inventory.sync(
    pf,
    without.map((facts) => ({ ...facts, iommuGroup: 2 })),
  );
  assert.equal(inventory.get(address)?.problem, undefined);
});

test("Inventory.sync() lets an idle VF go, and keeps a used one quarantined until it is given back", () => {
  const spec: PfSpec = { pf: "01:00.0", resources: ["d/x"], vfs: [["01:00.1"], ["01:00.2"]] };
  const inventory = inventoryOf(spec);
  const [a] = [idOf(inventory, "d/x", "01:00.1")];
  inventory.take({ connectionId: "c", tokenId: a, use: "kernel" });
  inventory.sync(parsePciAddress("01:00.0"), []);
  assert.deepEqual(
    inventory.snapshot().map(({ address, state, problem }) => ({ address, state, problem })),
    [{ address: "0000:01:00.1", state: "quarantined", problem: "it is gone from the node" }],
  );
  inventory.release("c");
  assert.deepEqual(inventory.snapshot(), []);
  assert.deepEqual(inventory.resources, []);
  inventory.sync(parsePciAddress("01:00.0"), factsOf(spec));
  assert.equal(idOf(inventory, "d/x", "01:00.1"), a);
});

test("Inventory.onChange() names the resources whose list has changed, those of the IOMMU group too, and no others", () => {
  const inventory = inventoryOf(...upstream);
  const seen: string[][] = [];
  const stop = inventory.onChange(({ resources }) => seen.push([...resources].sort()));
  inventory.reserveToken(idOf(inventory, "d2/10G", "02:00.1"));
  inventory.take({ connectionId: "c", tokenId: idOf(inventory, "d2/10G", "02:00.1"), use: "vfio" });
  inventory.setState("c", "ready");
  inventory.raise(parsePciAddress("02:00.1"), { code: "pf-without-carrier", error: "no carrier" });
  inventory.raise(parsePciAddress("02:00.1"), { code: "pf-without-carrier", error: "no carrier" });
  stop();
  inventory.setState("c", "reclaiming");
  assert.deepEqual(seen, [
    ["d2/intel"], // the sibling; the token itself is healthy in its pod's hands
    ["d1/10G", "d1/intel", "d2/20G", "d2/intel"], // group 1 is one pod's now
    [],
    ["d2/10G"],
  ]);
});

test("InventoryError messages and records of faults never carry a token id", () => {
  const inventory = inventoryOf({ pf: "01:00.0", resources: ["d/x"], vfs: [] });
  assert.throws(() => inventory.reserveToken("sriov-secret"), { message: /^(?!.*secret)/ });
});

// Every operation in every state: the state afterwards, or the fault.
const address: PciAddress = parsePciAddress("01:00.1");
const states = {
  idle: () => {},
  reserved: (inventory: Inventory, id: string) => inventory.reserveToken(id),
  preparing: (inventory: Inventory, id: string) => take(inventory, id),
  ready: (inventory: Inventory, id: string) => {
    take(inventory, id);
    inventory.setState("c", "ready");
  },
  reclaiming: (inventory: Inventory, id: string) => {
    take(inventory, id);
    inventory.setState("c", "reclaiming");
  },
  quarantined: (inventory: Inventory) => inventory.raise(address, BROKEN),
};
function take(inventory: Inventory, tokenId: string, connectionId = "c", use: VfUse = "kernel") {
  return inventory.take({ connectionId, tokenId, use });
}
const operations: readonly {
  readonly name: string;
  readonly run: (inventory: Inventory, id: string) => unknown;
  /** In the order of `states`. */
  readonly gives: readonly string[];
}[] = [
  {
    name: "reserveToken",
    run: (inventory, id) => inventory.reserveToken(id),
    gives: ["reserved", "reserved", "preparing", "ready", "reclaiming", "!no-free-vf"],
  },
  {
    name: "releaseToken",
    run: (inventory, id) => inventory.releaseToken(id),
    gives: ["idle", "idle", "preparing", "ready", "reclaiming", "quarantined"],
  },
  {
    name: "take by the same connection",
    run: take,
    gives: ["preparing", "preparing", "preparing", "ready", "!connection-holds-vf", "!no-free-vf"],
  },
  {
    name: "take by another connection",
    run: (inventory, id) => take(inventory, id, "other"),
    gives: ["preparing", "preparing", "!token-in-use", "!token-in-use", "!token-in-use", "!no-free-vf"],
  },
  {
    name: "take for another use",
    run: (inventory, id) => take(inventory, id, "c", "vfio"),
    gives: [
      "preparing",
      "preparing",
      "!connection-holds-vf",
      "!connection-holds-vf",
      "!connection-holds-vf",
      "!no-free-vf",
    ],
  },
  {
    name: "adopt",
    run: (inventory, tokenId) =>
      inventory.adopt({ connectionId: "c", tokenId, address, use: "kernel", state: "ready" }),
    gives: ["ready", "ready", "ready", "ready", "ready", "quarantined"],
  },
  {
    name: "setState ready",
    run: (inventory) => inventory.setState("c", "ready"),
    gives: ["!unknown-connection", "!unknown-connection", "ready", "ready", "!wrong-state", "!unknown-connection"],
  },
  {
    name: "setState reclaiming",
    run: (inventory) => inventory.setState("c", "reclaiming"),
    gives: [
      "!unknown-connection",
      "!unknown-connection",
      "reclaiming",
      "reclaiming",
      "reclaiming",
      "!unknown-connection",
    ],
  },
  {
    name: "release",
    run: (inventory) => inventory.release("c"),
    gives: ["idle", "reserved", "idle", "!wrong-state", "idle", "quarantined"],
  },
  {
    name: "raise of what quarantines",
    run: (inventory) => inventory.raise(address, { code: "driver-binding" }),
    gives: ["quarantined", "quarantined", "quarantined", "quarantined", "quarantined", "quarantined"],
  },
  {
    name: "clear of what quarantines",
    run: (inventory) => inventory.clear(address, "write-stuck"),
    gives: ["idle", "reserved", "preparing", "ready", "reclaiming", "idle"],
  },
  {
    name: "sync without it",
    run: (inventory) => inventory.sync(parsePciAddress("01:00.0"), []),
    gives: ["gone", "quarantined", "quarantined", "quarantined", "quarantined", "gone"],
  },
];
for (const { name, run, gives } of operations) {
  for (const [index, [state, enter]] of Object.entries(states).entries()) {
    test(`Inventory: ${name} on a VF that is ${state} gives ${gives[index]}`, () => {
      const inventory = inventoryOf({ pf: "01:00.0", resources: ["d/x"], vfs: [["01:00.1", 1]] });
      const id = idOf(inventory, "d/x", "01:00.1");
      enter(inventory, id);
      const fault = faultOf(() => run(inventory, id));
      const after = inventory.get(address)?.state ?? "gone";
      assert.equal(fault === "none" ? after : `!${fault}`, gives[index]);
      assert.equal(fault === "none" ? state : after, state);
    });
  }
}
