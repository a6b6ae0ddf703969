import assert from "node:assert/strict";
import { test } from "node:test";
import { KernelError } from "../kernel/index.ts";
import { silentLog } from "../telemetry/index.ts";
import { PodsOfTokens } from "./pods-of-tokens.ts";

const entry = (pod: string, resource: string, ...ids: readonly string[]) => {
  return { PodUID: pod, ContainerName: "app", ResourceName: resource, DeviceIDs: { "0": ids } };
};
const checkpoint = JSON.stringify({
  Data: {
    PodDeviceEntries: [entry("uid-1", "d/x", "a", "b"), entry("uid-2", "gpus/big", "g"), entry("uid-3", "d/y", "c")],
  },
});

const fileWith = (readText: () => Promise<string>) => new PodsOfTokens({ readText }, silentLog);

test("PodsOfTokens names the pods with our resources, and no pod that has only devices of others", async () => {
  const file = fileWith(async () => checkpoint);
  assert.deepEqual(await file.podsWith(["d/x", "d/y"]), new Set(["uid-1", "uid-3"]));
  assert.deepEqual(await file.podsWith(["d/x"]), new Set(["uid-1"]));
  assert.deepEqual(await file.podOf("b"), { uid: "uid-1", container: "app" });
  assert.equal(await file.podOf("unknown"), undefined);
});

test("PodsOfTokens names no pod where kubelet's file cannot be read or is none", async () => {
  const unreadable = () => Promise.reject(new KernelError("read the checkpoint", 13));
  for (const readText of [unreadable, async () => "{"]) {
    const file = fileWith(readText);
    assert.deepEqual(
      [await file.podsWith(["d/x"]), await file.podOf("a"), await file.read()],
      [new Set(), undefined, undefined],
    );
  }
});

test("PodsOfTokens does not take a fault of the program for a file that cannot be read", async () => {
  const fault = new TypeError("it is no function");
  await assert.rejects(fileWith(() => Promise.reject(fault)).read(), fault);
});
