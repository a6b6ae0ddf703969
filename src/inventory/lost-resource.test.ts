// A new list of PFs takes a resource from a VF, or brings the VF of an id that a pod has had for long.
import assert from "node:assert/strict";
import { test } from "node:test";
import { parsePciAddress, type VfFacts } from "../pci/index.ts";
import { Inventory } from "./inventory.ts";

const namespace = "6ba7b810-9dad-11d1-80b4-00c04fd430c8";
const [one, two, other] = [parsePciAddress("01:00.1"), parsePciAddress("01:00.2"), parsePciAddress("02:00.1")];

/** Which resources the VFs of the PF offer, by address. */
function list(inventory: Inventory, offers: Readonly<Record<string, readonly string[]>>): Inventory {
  const found = Object.entries(offers).map(([address, resources], index) => {
    const pf = parsePciAddress(`${address.slice(0, -1)}0`);
    return { address, pf, index, iommuGroup: undefined, kernelDriver: "iavf", resources } as unknown as VfFacts;
  });
  inventory.sync(found[0]?.pf ?? other, found);
  return inventory;
}

const both = { [one]: ["d/x", "d/y"], [two]: ["d/x"] };
const withoutOne = { [one]: ["d/y"], [two]: ["d/x"] };
const at = (inventory: Inventory, resource: string) =>
  inventory.devicesOf(resource).map(({ id, address, healthy }) => ({ id, address, healthy }));
const idOf = (inventory: Inventory, resource: string, address: string) =>
  inventory.devicesOf(resource).find((device) => device.address === address)?.id ?? assert.fail("no id stands for it");

test("Inventory.sync() leaves a token in use the VF that lost its resource, and gives no second one of it", () => {
  const inventory = list(new Inventory(namespace), both);
  const [x1, x2] = [idOf(inventory, "d/x", one), idOf(inventory, "d/x", two)];
  inventory.reserveToken(x1);
  inventory.raise(two, { code: "netdev-missing" });
  list(inventory, withoutOne);
  list(inventory, both);
  const expected = [
    { id: x1, address: one, healthy: true },
    { id: x2, address: two, healthy: false },
  ];
  assert.deepEqual(at(inventory, "d/x"), expected);
  list(inventory, withoutOne);
  inventory.releaseToken(x1);
  assert.deepEqual(at(inventory, "d/x"), [{ id: x2, address: two, healthy: false }]);
  list(inventory, both);
  assert.equal(idOf(inventory, "d/x", one), x1);
});

test("Inventory.adopt() of a token away from a VF that lost its resource assigns no other token to that one", () => {
  const inventory = list(new Inventory(namespace), both);
  const [x1, x2] = [idOf(inventory, "d/x", one), idOf(inventory, "d/x", two)];
  inventory.reserveToken(x1);
  list(inventory, withoutOne);
  inventory.adopt({ connectionId: "c", tokenId: x1, address: two, use: "kernel", state: "ready" });
  assert.deepEqual(at(inventory, "d/x"), [
    { id: x1, address: two, healthy: true },
    { id: x2, address: undefined, healthy: false },
  ]);
});

test("Inventory.adopt() on a VF that lost a resource forgets the token of that resource", () => {
  const inventory = list(new Inventory(namespace), both);
  const [x1, y1, x2] = [idOf(inventory, "d/x", one), idOf(inventory, "d/y", one), idOf(inventory, "d/x", two)];
  inventory.take({ connectionId: "c", tokenId: x1, use: "kernel" });
  list(inventory, withoutOne);
  inventory.adopt({ connectionId: "c", tokenId: y1, address: one, use: "kernel", state: "preparing" });
  inventory.release("c");
  assert.deepEqual(at(inventory, "d/x"), [{ id: x2, address: two, healthy: true }]);
});

test("Inventory.sync() that brings an id its own VF takes none from the token that has the VF it waited for", () => {
  const x3 = idOf(list(new Inventory(namespace), { [other]: ["d/x"] }), "d/x", other);
  const inventory = list(new Inventory(namespace), both);
  const x2 = idOf(inventory, "d/x", two);
  inventory.adoptToken(x3, "d/x");
  inventory.raise(two, { code: "netdev-missing" });
  inventory.adopt({ connectionId: "c", tokenId: x2, address: one, use: "kernel", state: "ready" });
  list(inventory, { [other]: ["d/x"] });
  assert.equal(inventory.get(one)?.tokenId, x2);
  assert.equal(idOf(inventory, "d/x", one), x2);
  assert.equal(inventory.reserveToken(x3).address, other);
});

test("Inventory.adopt() that displaces the token of an older forwarder leaves it no VF, and none that has gone", () => {
  const inventory = list(new Inventory(namespace), { [one]: ["d/x"] });
  const x1 = idOf(inventory, "d/x", one);
  inventory.adoptToken("sriov-old", "d/x");
  inventory.adopt({ connectionId: "c", tokenId: x1, address: one, use: "kernel", state: "preparing" });
  const old = { id: "sriov-old", address: undefined, healthy: false };
  assert.deepEqual(at(inventory, "d/x"), [{ id: x1, address: one, healthy: false }, old]);
  inventory.release("c");
  inventory.sync(parsePciAddress("01:00.0"), []);
  assert.deepEqual(at(inventory, "d/x"), [old]);
});

test("Inventory.sync() of a VF that is another PF's now takes back what the former one offered", () => {
  const inventory = list(new Inventory(namespace), { [one]: ["d/x"] });
  const x1 = idOf(inventory, "d/x", one);
  const [vf] = inventory.snapshot();
  const pf = parsePciAddress("02:00.0");
  inventory.sync(pf, [{ ...vf, address: one, pf, resources: ["d/y"] } as unknown as VfFacts]);
  assert.deepEqual([at(inventory, "d/x"), inventory.resources], [[], ["d/y"]]);
  assert.throws(() => inventory.reserveToken(x1), { message: /token/ });
  inventory.sync(parsePciAddress("01:00.0"), []);
  assert.deepEqual(inventory.get(one)?.conditions, [], "the former PF has lost nothing");
});
