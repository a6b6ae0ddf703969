import assert from "node:assert/strict";
import { test } from "node:test";
import { Inventory } from "../../inventory/index.ts";
import { parsePciAddress } from "../../pci/index.ts";
import { isOfOriginal, takeFoundVfio } from "./found-vf.ts";

const pf = parsePciAddress("01:00.0");
const vfs = ["01:10.0", "01:10.2", "01:10.4"].map(parsePciAddress);
const [first, second, third] = vfs;
const TOKEN = "sriov-3b2f6a1e-6c1d-4f0e-9a77-0c5a3a1d9e01";
const pod = { uid: "uid-1", container: "app" };

/** Three VFs, each open to these pods. */
function nodeOf(...pods: readonly (readonly string[])[]) {
  const inventory = new Inventory("6ba7b810-9dad-11d1-80b4-00c04fd430c8");
  const common = { pf, numaNode: undefined, kernelDriver: "igbvf", driver: "vfio-pci", resources: ["d/x"] };
  inventory.sync(
    pf,
    vfs.map((address, index) => ({ ...common, address, index, iommuGroup: index })),
  );
  inventory.adoptToken(TOKEN, "d/x");
  pods.forEach((uids, index) => {
    const address = vfs[index];
    if (address && uids.length > 0) inventory.raise(address, { code: "open-to-pod", pods: uids });
  });
  const take = (pciAddress?: string) => {
    const desired = { type: "VFIO", tokenId: TOKEN, cgroupDir: "", ...(pciAddress && { pciAddress }) } as const;
    return takeFoundVfio(inventory, pod, { connectionId: "c1", desired })?.vf.address;
  };
  return { inventory, take };
}

test("takeFoundVfio() notes the VF of the token's pod as its connection's", () => {
  const { inventory, take } = nodeOf([], ["uid-1"]);
  assert.equal(take(), second);
  const { state, tokenId, use, conditions } = inventory.ofConnection("c1") ?? assert.fail();
  assert.deepEqual([state, tokenId, use, conditions], ["preparing", TOKEN, "vfio", []]);
});

test("takeFoundVfio() takes none that is another pod's, whatever the client says", () => {
  assert.equal(nodeOf(["uid-2"]).take(first), undefined);
  const { take } = nodeOf(["uid-1"], ["uid-2"]);
  assert.equal(take(second), first);
});

test("takeFoundVfio() chooses among several by the client's word, else the one that no other pod may open", () => {
  assert.equal(nodeOf(["uid-1"], ["uid-1"], []).take(second), second);
  assert.equal(nodeOf(["uid-1", "uid-2"], [], ["uid-1"]).take(), third);
  const { inventory, take } = nodeOf(["uid-1"], ["uid-1"]);
  assert.throws(() => take(), { fault: { kind: "several-found", addresses: [first, second] } });
  assert.equal(inventory.ofConnection("c1"), undefined);
});

test("isOfOriginal() knows its rules by what they allow", () => {
  const of = (access: string) => isOfOriginal({ cgroup: "kubepods/pod1/app", major: 245, minor: 0, access });
  assert.deepEqual(["rwm", "wrm", "rw", "m"].map(of), [true, true, false, false]);
});
