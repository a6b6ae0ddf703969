// Which VF serves a request: each reason against one by itself, and each preference among those that are fit.
import assert from "node:assert/strict";
import { test } from "node:test";
import { type PciAddress, parsePciAddress, type VfFacts } from "../pci/index.ts";
import { chooseVf, driverUse, unfitBecause } from "./choose.ts";
import { Inventory } from "./inventory.ts";
import type { Vf } from "./token-assignments.ts";
import type { VfCondition } from "./vf-condition.ts";
import { VfConditions } from "./vf-conditions.ts";

const PF = parsePciAddress("01:00.0");
const [first, second, third] = ["01:00.1", "01:00.2", "01:00.3"].map((text) => parsePciAddress(text)) as [
  PciAddress,
  PciAddress,
  PciAddress,
];

function factsOf(address: PciAddress, more: Partial<VfFacts> = {}): VfFacts {
  const common = { pf: PF, index: 0, numaNode: undefined, kernelDriver: "iavf", driver: undefined, iommuGroup: 1 };
  return { ...common, address, resources: ["d/x", "d/y"], ...more };
}

function vfOf(
  address: PciAddress,
  more: Partial<VfFacts> & { readonly use?: "vfio" | "kernel"; readonly isPromised?: boolean } = {},
): Vf {
  const { use, isPromised = false, ...facts } = more;
  return {
    facts: factsOf(address, facts),
    conditions: new VfConditions(),
    holder: use && { connectionId: "c", owner: "pod", use, phase: "ready" },
    token: isPromised ? ({ id: "t" } as Vf["token"]) : undefined,
    standIns: new Map(),
  };
}

const request = (use: "vfio" | "kernel" | undefined) => ({ resource: "d/x", use, owner: "pod" });

/** The best of the VFs, whose groups are as they say. */
function best(
  use: "vfio" | "kernel" | undefined,
  fit: readonly Vf[],
  others: readonly Vf[] = [],
  free: Partial<Record<string, number>> = {},
) {
  const all = [...fit, ...others];
  const groupOf = (vf: Vf) => new Set(all.filter(({ facts }) => facts.iommuGroup === vf.facts.iommuGroup));
  return chooseVf(fit, request(use), { groupOf, freeOn: (pf) => free[pf] ?? 0 })?.facts.address;
}

test("chooseVf() prefers a group in the same use, then one without a promise, then the PF with more free ones, then the bound driver", () => {
  const [alone, shared] = [vfOf(first, { iommuGroup: 1 }), vfOf(second, { iommuGroup: 2 })];
  const inUse = vfOf(third, { iommuGroup: 2, use: "vfio" });
  assert.equal(best("vfio", [alone, shared], [inUse]), second);
  assert.equal(best("kernel", [alone, shared], [inUse]), first, "not the same use");
  assert.equal(best(undefined, [alone, shared], [inUse]), first, "for nothing yet");
  const promised = vfOf(parsePciAddress("01:00.4"), { iommuGroup: 1, isPromised: true });
  assert.equal(best("vfio", [alone, shared], [promised]), second);
  assert.equal(best("kernel", [alone, shared], [promised]), first, "a kernel driver takes nothing from a promise");
  const both = [inUse, vfOf(parsePciAddress("01:00.5"), { iommuGroup: 2, isPromised: true })];
  assert.equal(best("vfio", [alone, shared], both), second, "the same use comes first");
  const held = vfOf(parsePciAddress("01:00.4"), { iommuGroup: 1, isPromised: true, use: "vfio" });
  assert.equal(best("vfio", [alone, shared], [held, inUse]), first, "what is held is no promise");
  const there = vfOf(second, { iommuGroup: 2, pf: parsePciAddress("02:00.0"), driver: undefined });
  const bound = vfOf(first, { driver: "iavf" });
  assert.equal(best("kernel", [bound, there], [], { "0000:02:00.0": 3, "0000:01:00.0": 2 }), second);
  assert.equal(best("kernel", [alone, vfOf(second, { iommuGroup: 2, driver: "iavf" })]), second, "it spares a rebind");
  assert.equal(best("kernel", [shared, alone]), first, "the lower address");
});

test("driverUse() is the kernel's only with the VF's own driver", () => {
  assert.deepEqual(
    ["iavf", "vfio-pci", "uio_pci_generic", undefined].map((driver) => driverUse(factsOf(first, { driver }))),
    ["kernel", "vfio", "none", "none"],
  );
});

test("unfitBecause() names what keeps a VF from VFIO alone, and what keeps it from anything", () => {
  const why = (use: "vfio" | "kernel", vf: Vf) => unfitBecause(vf, request(use), () => new Set([vf]));
  const foreign = vfOf(first, { vfioProblem: "its IOMMU group 1 also holds 0000:07:00.0" });
  assert.deepEqual(
    [why("kernel", foreign), why("vfio", foreign)],
    [undefined, "unfit for VFIO (its IOMMU group 1 also holds 0000:07:00.0)"],
  );
  const ill = vfOf(first);
  ill.conditions.raise({ code: "pf-without-carrier", error: "no carrier" });
  assert.equal(why("kernel", ill), "unhealthy (no carrier)");
});

test("unfitBecause() names what keeps a VF for long before its cleaning, which a Request would wait for", () => {
  const why = (vf: Vf, group = [vf]) => unfitBecause(vf, request("vfio"), () => new Set(group));
  const cleaned = (more: Parameters<typeof vfOf>[1], ...conditions: readonly VfCondition[]) => {
    const vf = vfOf(first, more);
    for (const condition of [{ code: "being-cleaned" } as const, ...conditions]) vf.conditions.raise(condition);
    return vf;
  };
  const hostUse = { code: "host-use", how: "it has an address" } as const;
  const ill = { code: "pf-without-carrier", error: "no carrier" } as const;
  assert.equal(why(cleaned({})), "being cleaned after the last client");
  assert.equal(why(cleaned({}, hostUse)), "withheld, for the host uses it (0000:01:00.1: it has an address)");
  assert.equal(why(cleaned({}, hostUse, ill)), "unhealthy (no carrier)");
  assert.equal(why(cleaned({ use: "vfio" }, hostUse, ill)), "being cleaned after the last client", "its holder's");
  assert.match(why(vfOf(second), [cleaned({})]) ?? "", /is being cleaned/);
  assert.match(why(vfOf(second), [cleaned({}, hostUse)]) ?? "", /of which the host uses 0000:01:00.1/);
});

function inventoryOf(...facts: readonly VfFacts[]): Inventory {
  const inventory = new Inventory("6ba7b810-9dad-11d1-80b4-00c04fd430c8");
  inventory.sync(PF, facts);
  return inventory;
}

const idOf = (inventory: Inventory, resource: string, address: PciAddress) =>
  inventory.devicesOf(resource).find((device) => device.address === address)?.id ?? assert.fail(address);

test("a pod keeps the group that it has by VFIO, though one of it has gone or is the host's by now", () => {
  const inventory = inventoryOf(factsOf(first), factsOf(second), factsOf(third));
  const [a, b, c] = [first, second, third].map((address) => idOf(inventory, "d/x", address)) as [
    string,
    string,
    string,
  ];
  const take = (connectionId: string, tokenId: string) =>
    inventory.take({ connectionId, tokenId, use: "vfio", owner: "pod" }).address;
  take("c1", a);
  inventory.raise(first, { code: "host-use", how: "it has an address" });
  assert.equal(take("c2", b), second);
  inventory.sync(PF, [factsOf(second), factsOf(third)]);
  assert.equal(take("c3", c), third);
});

test("take() by one resource's token leaves a VF to the connection that has it by another's", () => {
  const inventory = inventoryOf(factsOf(first, { iommuGroup: 1 }), factsOf(second, { iommuGroup: 2 }));
  const [x, y] = [idOf(inventory, "d/x", first), idOf(inventory, "d/y", first)];
  inventory.take({ connectionId: "c1", tokenId: y, use: "kernel" });
  assert.equal(inventory.take({ connectionId: "c2", tokenId: x, use: "kernel" }).address, second);
});

test("take() by the same connection is refused for a VF that is quarantined since", () => {
  const inventory = inventoryOf(factsOf(first));
  const request = { connectionId: "c1", tokenId: idOf(inventory, "d/x", first), use: "kernel" } as const;
  inventory.take(request);
  inventory.raise(first, { code: "write-stuck", error: "it hangs" });
  assert.throws(() => inventory.take(request), {
    fault: { kind: "connection-holds-vf", address: first, use: "kernel" },
  });
});

test("adopt() does not give a token's connection a second VF, nor another connection the token's", () => {
  const inventory = inventoryOf(factsOf(first), factsOf(second));
  const tokenId = idOf(inventory, "d/x", first);
  inventory.take({ connectionId: "c1", tokenId, use: "kernel" });
  const adopt = (connectionId: string) =>
    inventory.adopt({ connectionId, tokenId, address: second, use: "kernel", state: "ready" });
  assert.throws(() => adopt("c2"), { fault: { kind: "vf-in-use", address: second, connectionId: "c1" } });
  assert.throws(() => adopt("c1"), { fault: { kind: "connection-holds-vf", address: first, use: "kernel" } });
});

test("releaseToken() of a token that has lost its VF names neither that nor who has it", () => {
  const inventory = inventoryOf(factsOf(first));
  const [x, y] = [idOf(inventory, "d/x", first), idOf(inventory, "d/y", first)];
  inventory.reserveToken(x);
  const reported: string[][] = [];
  inventory.onChange(({ resources }) => reported.push([...resources].sort()));
  inventory.adopt({ connectionId: "c1", tokenId: y, address: first, use: "kernel", state: "ready" });
  assert.deepEqual(reported, [["d/x"]]);
  assert.deepEqual(inventory.releaseToken(x), { address: undefined, heldBy: undefined, isNew: true });
  assert.equal(inventory.ofConnection("c1")?.address, first);
});

test("a token that a pod has is known by its place, though no other pod could be given its VF", () => {
  const inventory = inventoryOf(factsOf(first, { numaNode: 1 }));
  const [x, y] = [idOf(inventory, "d/x", first), idOf(inventory, "d/y", first)];
  inventory.reserveToken(x);
  assert.deepEqual([inventory.placementOf(x)?.numaNode, inventory.placementOf(y)], [1, undefined]);
});

test("sync() withdraws the devices of a resource that a VF offers no more, and says so", () => {
  const inventory = inventoryOf(factsOf(first), factsOf(second));
  const reported = new Set<string>();
  inventory.onChange(({ resources }) => resources.forEach((resource) => void reported.add(resource)));
  inventory.sync(PF, [factsOf(first, { resources: ["d/x"] }), factsOf(second, { resources: ["d/x"] })]);
  assert.deepEqual([inventory.devicesOf("d/y"), inventory.devicesOf("d/x").length, reported.has("d/y")], [[], 2, true]);
});

test("adoptToken() names the list that the token has come to, and that of the VF that it is given", () => {
  const inventory = inventoryOf(factsOf(first));
  const reported: string[][] = [];
  inventory.onChange(({ resources }) => reported.push([...resources].sort()));
  inventory.adoptToken("sriov-old", "d/x");
  inventory.adoptToken("sriov-other", "d/z");
  assert.deepEqual(reported, [["d/x", "d/y"], ["d/z"]]);
});

test("who listens to the inventory from within a change hears of the next one", () => {
  const inventory = inventoryOf(factsOf(first));
  let reported = 0;
  inventory.onChange(() => {
    const count = () => {
      reported += 1;
    };
    if (reported === 0) inventory.onChange(count);
  });
  inventory.raise(first, { code: "netdev-unseen" });
  assert.equal(reported, 0);
});

test("adoptToken() and adopt() of what is so already leave the token its VF, though another one is free", () => {
  const inventory = inventoryOf(factsOf(first), factsOf(second));
  const x = idOf(inventory, "d/x", first);
  inventory.take({ connectionId: "c1", tokenId: x, use: "kernel" });
  inventory.adoptToken(x, "d/x");
  assert.deepEqual([inventory.get(first)?.tokenId, inventory.get(second)?.tokenId], [x, undefined]);
  const other = inventoryOf(factsOf(first), factsOf(second));
  other.adoptToken("sriov-old", "d/x");
  other.adopt({ connectionId: "c1", tokenId: "sriov-old", address: first, use: "kernel", state: "ready" });
  assert.deepEqual([other.get(first)?.tokenId, other.get(second)?.tokenId], ["sriov-old", undefined]);
});
