import assert from "node:assert/strict";
import { test } from "node:test";
import { parsePciAddress } from "../pci/index.ts";
import { Inventory } from "./inventory.ts";
import { offerOf } from "./offer.ts";

const pf = parsePciAddress("01:00.0");

function setUp() {
  const inventory = new Inventory("6ba7b810-9dad-11d1-80b4-00c04fd430c8");
  const common = { pf, iommuGroup: undefined, kernelDriver: "iavf", resources: ["d/x"], driver: undefined };
  inventory.sync(
    pf,
    [1, 2, 3].map((n) => ({ ...common, address: parsePciAddress(`01:00.${n}`), index: n - 1, numaNode: n % 2 })),
  );
  const stale: string[] = [];
  const offer = offerOf(inventory, (connectionId) => stale.push(connectionId));
  return { inventory, offer, stale, ids: offer.devices("d/x").map(({ id }) => id) };
}

test("offerOf() reserves all ids of a pod or none", () => {
  const { inventory, offer, ids } = setUp();
  const [first = "", second = ""] = ids;
  offer.allocate("d/x", [first]);
  assert.throws(() => offer.allocate("d/x", [first, second, "sriov-unknown"]), { fault: { kind: "unknown-token" } });
  assert.deepEqual(
    inventory.snapshot().map(({ state }) => state),
    ["reserved", "idle", "idle"],
  );
});

test("offerOf() names the connection of an earlier pod", () => {
  const { inventory, offer, stale, ids } = setUp();
  const [tokenId = ""] = ids;
  inventory.take({ connectionId: "old", tokenId, use: "kernel" });
  offer.allocate("d/x", [tokenId]);
  assert.deepEqual(stale, ["old"]);
});

test("offerOf() ends no connection for a pod that does not get all of its ids", () => {
  const { inventory, offer, stale, ids } = setUp();
  const [tokenId = ""] = ids;
  inventory.take({ connectionId: "old", tokenId, use: "kernel" });
  assert.throws(() => offer.allocate("d/x", [tokenId, "sriov-unknown"]), { fault: { kind: "unknown-token" } });
  assert.deepEqual(stale, []);
});

test("offerOf() keeps offering a resource whose VFs are gone, and reports it", () => {
  const { inventory, offer } = setUp();
  let reported = 0;
  assert.deepEqual(offer.resources(), ["d/x"]);
  const stop = offer.onChange(() => reported++);
  inventory.sync(pf, []);
  stop();
  assert.ok(reported > 0);
  assert.deepEqual([offer.resources(), offer.devices("d/x")], [["d/x"], []]);
});

test("offerOf() prefers devices of one NUMA node", () => {
  const { offer, ids } = setUp();
  const [a, , c] = ids;
  assert.deepEqual(offer.preferred("d/x", { available: ids, mustInclude: [], size: 2 }), [a, c]);
});

test("offerOf() prefers last what another resource has taken and kubelet does not know of yet", () => {
  const inventory = new Inventory("6ba7b810-9dad-11d1-80b4-00c04fd430c8");
  const common = { pf, iommuGroup: undefined, numaNode: 0, kernelDriver: "iavf", resources: ["d/x", "d/y"] };
  const functions = [1, 2].map((n) => ({ ...common, address: parsePciAddress(`01:00.${n}`), index: n - 1 }));
  inventory.sync(
    pf,
    functions.map((one) => ({ ...one, driver: undefined })),
  );
  const offer = offerOf(inventory, () => {});
  const [x = ""] = offer.devices("d/x").map(({ id }) => id);
  const available = offer.devices("d/y").map(({ id }) => id);
  offer.allocate("d/x", [x]);
  assert.deepEqual(offer.preferred("d/y", { available, mustInclude: [], size: 1 }), available.slice(1));
});
