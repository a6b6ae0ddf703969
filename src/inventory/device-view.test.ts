// What kubelet is shown of a token, by who has its VF and what is so of it.
import assert from "node:assert/strict";
import { test } from "node:test";
import { parsePciAddress } from "../pci/index.ts";
import { Inventory } from "./inventory.ts";

const [pf, one, two] = ["01:00.0", "01:10.0", "01:10.2"].map(parsePciAddress);

function setUp() {
  assert.ok(pf && one && two);
  const inventory = new Inventory("6ba7b810-9dad-11d1-80b4-00c04fd430c8");
  const common = { pf, iommuGroup: 1, numaNode: 0, kernelDriver: "igbvf", driver: "vfio-pci", resources: ["d/x"] };
  inventory.sync(
    pf,
    [one, two].map((address, index) => ({ ...common, address, index })),
  );
  const [tokenId = ""] = inventory.devicesOf("d/x").map(({ id }) => id);
  const healthy = () => inventory.devicesOf("d/x").map((device) => device.healthy);
  return { inventory, tokenId, one, healthy };
}

test("a group that a pod has by VFIO since before a restart is offered to no other, though the pod is not known", () => {
  const { inventory, tokenId, one, healthy } = setUp();
  assert.deepEqual(healthy(), [true, true]);
  inventory.adopt({ connectionId: "c", tokenId, address: one, use: "vfio", state: "ready" });
  assert.equal(healthy()[1], false);
});

test("a VF that the host uses is unhealthy to the pod that has its token, and well again when a connection has it", () => {
  const { inventory, tokenId, one, healthy } = setUp();
  inventory.reserveToken(tokenId);
  inventory.raise(one, { code: "host-use", how: "it has an address" });
  assert.equal(healthy()[0], false);
  inventory.clear(one, "host-use");
  inventory.take({ connectionId: "c", tokenId, use: "kernel" });
  inventory.raise(one, { code: "host-use", how: "it has an address" });
  assert.equal(healthy()[0], true);
});

test("a VF that is being cleaned is healthy to kubelet, and its token is given to the next pod", () => {
  const { inventory, tokenId, one, healthy } = setUp();
  const reported: string[] = [];
  inventory.onChange(({ resources }) => reported.push(...resources));
  inventory.raise(one, { code: "being-cleaned" });
  assert.deepEqual([healthy(), reported], [[true, true], []]);
  assert.equal(inventory.reserveToken(tokenId).address, one);
  assert.deepEqual([healthy(), reported], [[true, true], []]);
});
