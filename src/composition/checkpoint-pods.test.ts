import assert from "node:assert/strict";
import { test } from "node:test";
import { tokenPods } from "./checkpoint-pods.ts";

const entry = (pod: string, resource: string, ...ids: readonly string[]) => {
  return { PodUID: pod, ContainerName: "app", ResourceName: resource, DeviceIDs: { "0": ids } };
};
const checkpoint = JSON.stringify({
  Data: {
    PodDeviceEntries: [entry("uid-1", "d/x", "a", "b"), entry("uid-2", "gpus/big", "g"), entry("uid-3", "d/y", "c")],
  },
});

test("tokenPods() names the pods with our resources, and no pod that has only devices of others", async () => {
  const { podOf, podsWith } = tokenPods(async () => checkpoint);
  assert.deepEqual(await podsWith(["d/x", "d/y"]), new Set(["uid-1", "uid-3"]));
  assert.deepEqual(await podsWith(["d/x"]), new Set(["uid-1"]));
  assert.deepEqual(await podOf("b"), { uid: "uid-1", container: "app" });
  assert.equal(await podOf("unknown"), undefined);
});

test("tokenPods() names no pod where kubelet's file cannot be read or is none", async () => {
  for (const text of [undefined, "{"]) {
    const { podOf, podsWith } = tokenPods(async () => text);
    assert.deepEqual([await podsWith(["d/x"]), await podOf("a")], [new Set(), undefined]);
  }
});
