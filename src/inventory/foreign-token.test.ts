import assert from "node:assert/strict";
import { test } from "node:test";
import { parsePciAddress } from "../pci/index.ts";
import { Inventory } from "./inventory.ts";
import type { InventoryError } from "./inventory-fault.ts";

/** Two VFs with these resources. */
function inventoryOf(resources: readonly string[]): Inventory {
  const inventory = new Inventory("6ba7b810-9dad-11d1-80b4-00c04fd430c8");
  const pf = parsePciAddress("01:00.0");
  const common = { pf, iommuGroup: undefined, numaNode: undefined, driver: "igbvf", kernelDriver: "igbvf", resources };
  const addresses = ["01:00.1", "01:00.2"].map(parsePciAddress);
  inventory.sync(
    pf,
    addresses.map((address, index) => ({ ...common, address, index })),
  );
  return inventory;
}

test("Inventory.adopt() notes a token that this node did not make, where the VF has its resource and no other could be meant", () => {
  const [address, connectionId] = [parsePciAddress("01:00.1"), "c"];
  const adopted = (resources: readonly string[], resource?: string) => {
    const inventory = inventoryOf(resources);
    const before = resources.flatMap((name) => inventory.devicesOf(name));
    const request = { connectionId, tokenId: "sriov-original", address, use: "kernel", state: "ready" } as const;
    try {
      inventory.adopt({ ...request, resource });
    } catch (error) {
      assert.deepEqual(
        resources.flatMap((name) => inventory.devicesOf(name)),
        before,
      );
      return (error as InventoryError).fault.kind;
    }
    return [inventory.resourceOf("sriov-original"), inventory.ofConnection("c")?.address];
  };
  assert.deepEqual(adopted(["d/x", "d/y"], "d/y"), ["d/y", address]);
  assert.deepEqual(adopted(["d/x"]), ["d/x", address]);
  assert.equal(adopted(["d/x", "d/y"]), "unknown-token");
  assert.equal(adopted(["d/x"], "d/other"), "unknown-token");
});
