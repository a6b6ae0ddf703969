import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { Kubelet } from "../../sandbox/kubelet/kubelet.ts";
import { within } from "../../test/scenes/until.ts";
import { systemClock as clock, Latest, systemRandom as random, UndoStack } from "../async/index.ts";
import { Inventory } from "../inventory/index.ts";
import { BlockingWrites, openHostFiles, watchFolder } from "../kernel/index.ts";
import { CHECKPOINT_FILE, openCheckpoint, type PodResources } from "../kubelet/index.ts";
import { parsePciAddress } from "../pci/index.ts";
import { Health, silentLog as log } from "../telemetry/index.ts";
import { newsOf, openKubelet } from "./kubelet-offer.ts";

const RESOURCE = "worker.domain/10G";

/** Kubelet has said that this pod, and no other, has the token. */
function saying(pod: string, tokenId: string) {
  const devices = new Map([[tokenId, { resource: "worker.domain/10G", pod, container: "app" }]]);
  return { kind: "known", holdings: { pods: new Set([pod]), devices } } as const;
}

test("newsOf() goes by what kubelet said last, also while it is away", () => {
  const state: PodResources["state"] = new Latest();
  const news = newsOf({ state });
  const known = () => ["t1", "t2"].map((tokenId) => news.podOf(tokenId));
  assert.deepEqual(known(), [undefined, undefined]);
  state.set(saying("default/a", "t1"));
  state.set({ kind: "unknown", problem: "kubelet does not answer" });
  assert.deepEqual(known(), ["default/a", undefined]);
  state.set(saying("default/b", "t2"));
  assert.deepEqual(known(), [undefined, "default/b"]);
  assert.equal(newsOf({ state }).podOf("t2"), "default/b", "what it had said before");
});

/** A node of one VF, offered to a kubelet that runs. Kubelet is queried once. */
async function opened(t: TestContext, endConnection: (connectionId: string) => Promise<void>) {
  const base = mkdtempSync(join(tmpdir(), "offer-"));
  t.after(() => rmSync(base, { recursive: true }));
  const [folder, podResourcesFolder] = [join(base, "device-plugins"), join(base, "pod-resources")];
  const kubelet = new Kubelet({ folder, podResourcesFolder, log, clock });
  await kubelet.start();
  t.after(() => kubelet.stop());
  const inventory = new Inventory("6ba7b810-9dad-11d1-80b4-00c04fd430c8");
  const pf = parsePciAddress("01:00.0");
  const facts = { index: 0, iommuGroup: undefined, numaNode: undefined, driver: undefined, kernelDriver: "igbvf" };
  inventory.sync(pf, [{ ...facts, pf, address: parsePciAddress("01:10.0"), resources: [RESOURCE] }]);
  const settings = { devicePluginPath: folder, podResourcesPath: podResourcesFolder, resourcePollTimeoutMs: 3_600_000 };
  const pods = openCheckpoint((path) => openHostFiles(path, new BlockingWrites()), folder, log);
  const common = { settings, inventory, pods, host: { watchFolder, random }, transport: undefined };
  const undo = new UndoStack();
  t.after(() => undo.unwind((_part, error) => assert.fail(String(error))));
  const side = openKubelet({ ...common, endConnection, health: new Health(clock), clock, log }, undo);
  return { kubelet, inventory, side, folder };
}

test("resourceOf() is kubelet's checkpoint, else its list of pods, before anything is offered", async (t) => {
  const { kubelet, side, folder } = await opened(t, async () => {});
  kubelet.remember("noted", RESOURCE, ["sriov-noted"]);
  kubelet.remember("listed", RESOURCE, ["sriov-listed"]);
  const entry = { PodUID: "uid", ContainerName: "app", ResourceName: "d/noted", DeviceIDs: { "-1": ["sriov-noted"] } };
  writeFileSync(join(folder, CHECKPOINT_FILE), JSON.stringify({ Data: { PodDeviceEntries: [entry] }, Checksum: 0 }));
  const said = await Promise.all(["sriov-noted", "sriov-listed", "sriov-none"].map(side.resourceOf));
  assert.deepEqual(said, ["d/noted", RESOURCE, undefined]);
  assert.equal(kubelet.registrations, 0);
});

test("offer() ends the connection of the former pod when its token is given out again", async (t) => {
  const ended = Promise.withResolvers<string>();
  const { kubelet, inventory, side } = await opened(t, async (connectionId) => ended.resolve(connectionId));
  await side.offer();
  const [device] = await kubelet.until(RESOURCE, (devices) => devices.some(({ healthy }) => healthy));
  assert.ok(device);
  inventory.take({ connectionId: "of-former-pod", tokenId: device.id, use: "kernel" });
  await kubelet.allocate({ pod: "new", resource: RESOURCE });
  assert.equal(await within("a connection is ended", ended.promise), "of-former-pod");
});
