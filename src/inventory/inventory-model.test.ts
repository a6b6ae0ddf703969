// A random walk over every operation, checked after each step against what must hold whatever happened.
import assert from "node:assert/strict";
import { test } from "node:test";
import type { VfFacts } from "../pci/index.ts";
import { type PciAddress, parsePciAddress } from "../pci/index.ts";
import { Inventory } from "./inventory.ts";
import { InventoryError } from "./inventory-fault.ts";
import type { VfCondition } from "./vf-condition.ts";

const namespace = "6ba7b811-9dad-11d1-80b4-00c04fd430c8";

/** Two physical functions with shared and own resources; VFIO groups of one, two and three, some across both. */
function world(): VfFacts[] {
  return [1, 2].flatMap((bus) =>
    Array.from({ length: 6 }, (_, index) => ({
      address: parsePciAddress(`0${bus}:00.${index + 1}`),
      pf: parsePciAddress(`0${bus}:00.0`),
      index,
      iommuGroup: index < 2 ? 1 : index < 4 ? 10 + bus : 100 * bus + index,
      numaNode: bus,
      kernelDriver: "iavf",
      resources: bus === 1 ? ["d/x", "d/y"] : ["d/x", "e/z"],
      driver: undefined,
    })),
  );
}

const raised: readonly VfCondition[] = [
  { code: "write-stuck", error: "broken" },
  { code: "netdev-missing" },
  { code: "pf-without-carrier", error: "no carrier" },
  { code: "host-use", how: "the host has an address on it" },
];

/** Of a forwarder before this one. */
const OLDER = "sriov-older-1";

function freshInventory(): Inventory {
  const inventory = new Inventory(namespace);
  for (const pf of new Set(world().map((vf) => vf.pf))) {
    inventory.sync(
      pf,
      world().filter((vf) => vf.pf === pf),
    );
  }
  return inventory;
}

/** Which VF each id is assigned to. */
const offersOf = (inventory: Inventory) =>
  inventory.resources
    .flatMap((name) => inventory.devicesOf(name).map(({ id, address }) => `${name} ${id} ${address}`))
    .sort();
const freshOffers = new Set(offersOf(freshInventory()));

function check(inventory: Inventory): void {
  const all = inventory.snapshot();
  for (const { address, conditions, connectionId } of all) {
    const isWithheld = conditions.some(({ code }) => code === "host-use");
    assert.ok(!isWithheld || connectionId === undefined, `${address} is withheld from who has it`);
  }
  const holders = all.flatMap(({ connectionId }) => connectionId ?? []);
  assert.equal(new Set(holders).size, holders.length, "one connection holds two VFs");
  const reserved = all.flatMap(({ tokenId }) => tokenId ?? []);
  assert.equal(new Set(reserved).size, reserved.length, "one token stands for two VFs");
  for (const { connectionId, state, address } of all) {
    const inHand = ["preparing", "ready", "reclaiming"].includes(state);
    assert.ok(connectionId !== undefined || !inHand, `${address} is ${state} without a connection`);
    assert.ok(!connectionId || inventory.ofConnection(connectionId)?.address === address, "connection index is wrong");
  }
  for (const group of new Set(all.map(({ iommuGroup }) => iommuGroup))) {
    const uses = new Set(all.flatMap((vf) => (vf.iommuGroup === group && vf.use ? vf.use : [])));
    assert.ok(uses.size < 2, `group ${group} serves both drivers`);
    const vfio = all.filter((vf) => vf.iommuGroup === group && vf.use === "vfio");
    assert.ok(vfio.length < 2, `group ${group} is in the hands of two pods`);
  }
  for (const resource of inventory.resources) {
    const offering = all.filter(({ resources }) => resources.includes(resource)).map((vf) => vf.address);
    const own = inventory
      .devicesOf(resource)
      .filter(({ id, address }) => address && offering.some((vf) => freshOffers.has(`${resource} ${id} ${vf}`)));
    assert.equal(new Set(own.map(({ address }) => address)).size, own.length, "two ids stand for one VF");
    const healthy = inventory.devicesOf(resource).filter(({ id, healthy }) => healthy && !reserved.includes(id));
    const free = all.filter((vf) => vf.resources.includes(resource) && vf.state === "idle" && vf.problem === undefined);
    const stoodFor = new Set(healthy.map(({ address }) => address));
    assert.equal(stoodFor.size, healthy.length, "two free ids stand for one VF");
    for (const address of stoodFor)
      assert.ok(
        free.some((vf) => vf.address === address),
        "a free id stands for nothing",
      );
  }
}

const listOf = (inventory: Inventory, resource: string) =>
  inventory.devicesOf(resource).map(({ id, healthy, numaNode }) => ({ id, healthy, numaNode }));

/** What a reader knows that reads a list only when its resource is named. */
function follow(inventory: Inventory): ReadonlyMap<string, ReturnType<typeof listOf>> {
  const seen = new Map<string, ReturnType<typeof listOf>>();
  inventory.onChange(({ resources }) => {
    for (const resource of resources) seen.set(resource, listOf(inventory, resource));
  });
  return seen;
}

function walk(seed: number, steps: number): Inventory {
  let state = seed;
  const below = (limit: number) => {
    state = (state * 1_103_515_245 + 12_345) % 2_147_483_648;
    return Math.floor((state / 2_147_483_648) * limit);
  };
  const inventory = freshInventory();
  const seen = follow(inventory);
  const facts = world();
  const pfs = [...new Set(facts.map(({ pf }) => pf))];
  inventory.adoptToken(OLDER, "d/x");
  const resourceOf = new Map(
    inventory.resources.flatMap((name) => inventory.devicesOf(name).map(({ id }) => [id, name] as const)),
  );
  const ids = [...resourceOf.keys()];
  const pick = <T>(list: readonly T[]): T => list[below(list.length)] as T;
  const vf = (): PciAddress => pick(facts).address;
  const connectionId = () => `c${below(8)}`;
  const use = () => pick(["kernel", "vfio"] as const);
  const operations: readonly (() => unknown)[] = [
    () => inventory.reserveToken(pick(ids)),
    () => inventory.releaseToken(pick(ids)),
    () => inventory.take({ connectionId: connectionId(), tokenId: pick(ids), use: use() }),
    () => inventory.take({ connectionId: connectionId(), tokenId: pick(ids), use: use() }),
    () => {
      // Where no other VF is in the group: what is found on a node may not be as we would have it, but here it is.
      const groups = new Set(inventory.snapshot().flatMap((one) => (one.connectionId ? (one.iommuGroup ?? []) : [])));
      const one = pick(facts);
      if (groups.has(one.iommuGroup ?? 0)) return;
      const state = pick(["preparing", "ready", "reclaiming"] as const);
      inventory.adopt({ connectionId: connectionId(), tokenId: pick(ids), use: use(), address: one.address, state });
    },
    () => {
      const id = pick(ids);
      inventory.adoptToken(id, resourceOf.get(id) ?? "");
    },
    () => inventory.setState(connectionId(), pick(["ready", "reclaiming"] as const)),
    () => inventory.release(connectionId()),
    () => inventory.release(connectionId()),
    () => {
      const before = JSON.stringify(inventory.snapshot());
      inventory.hasOther(connectionId(), pick(raised));
      assert.equal(JSON.stringify(inventory.snapshot()), before, "a question changed something");
    },
    () => (below(4) === 0 ? inventory.raise(vf(), pick(raised)) : inventory.clear(vf(), pick(raised).code)),
    () => (below(3) === 0 ? inventory.raise(vf(), pick(raised)) : inventory.clear(vf(), pick(raised).code)),
    () => {
      const pf = pick(pfs);
      const left = below(3);
      inventory.sync(
        pf,
        facts
          .filter((one) => one.pf === pf && (left > 0 || below(2) === 0))
          .map((one) => (below(6) === 0 ? { ...one, resources: one.resources.slice(below(2), 2) } : one)),
      );
    },
  ];
  for (let step = 0; step < steps; step++) {
    const before = JSON.stringify(inventory.snapshot());
    try {
      pick(operations)();
    } catch (error) {
      assert.ok(error instanceof InventoryError, String(error));
      assert.equal(JSON.stringify(inventory.snapshot()), before, "a refusal changed something");
    }
    check(inventory);
    for (const [resource, devices] of seen)
      assert.deepEqual(devices, listOf(inventory, resource), `${resource} is reported late`);
  }
  for (let index = 0; index < 8; index++) {
    if (inventory.ofConnection(`c${index}`)) inventory.setState(`c${index}`, "reclaiming");
    inventory.release(`c${index}`);
  }
  for (const id of ids) inventory.releaseToken(id);
  for (const pf of pfs)
    inventory.sync(
      pf,
      facts.filter((one) => one.pf === pf),
    );
  for (const { address } of facts) {
    for (const { code } of raised) inventory.clear(address, code);
  }
  return inventory;
}

for (const seed of [1, 2, 3, 4, 5, 6]) {
  test(`Inventory holds its promises on a random walk (seed ${seed}) and ends with everything free`, () => {
    const inventory = walk(seed, 1_500);
    assert.deepEqual(
      inventory.resources
        .map((name) => [name, inventory.devicesOf(name).filter(({ healthy }) => healthy).length])
        .sort(),
      [
        ["d/x", 12],
        ["d/y", 6],
        ["e/z", 6],
      ],
    );
    assert.ok(inventory.snapshot().every(({ state }) => state === "idle"));
    assert.deepEqual(new Set(offersOf(inventory)), freshOffers, "each id is at home again");
  });
}
