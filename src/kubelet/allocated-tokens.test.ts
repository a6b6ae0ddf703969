import assert from "node:assert/strict";
import { test } from "node:test";
import { Latest } from "../async/index.ts";
import { Inventory, offerOf } from "../inventory/index.ts";
import { HandClock, settled } from "../nsm/testing/fakes.ts";
import { parsePciAddress } from "../pci/index.ts";
import { recordingLog } from "../telemetry/recording-log.ts";
import { AllocatedTokens } from "./allocated-tokens.ts";
import type { PodResourcesState } from "./pod-resources.ts";

const INTERVAL_MS = 1_000;
const pf = parsePciAddress("01:00.0");
const address = parsePciAddress("01:10.0");

/** A node of one VF, whose token a pod has since a previous instance. */
async function nodeWithPod() {
  const inventory = new Inventory("6ba7b810-9dad-11d1-80b4-00c04fd430c8");
  const facts = { address, pf, index: 0, iommuGroup: undefined, numaNode: undefined, driver: "igbvf" };
  inventory.sync(pf, [{ ...facts, kernelDriver: "igbvf", resources: ["d/x"] }]);
  const tokenId = inventory.devicesOf("d/x")[0]?.id ?? "";
  const holder = { resource: "d/x", pod: "ns/pod", container: "app" };
  const has: PodResourcesState = {
    kind: "known",
    holdings: { pods: new Set(["ns/pod"]), devices: new Map([[tokenId, holder]]) },
  };
  const hasEnded: PodResourcesState = { kind: "known", holdings: { pods: new Set(), devices: new Map() } };
  const state = new Latest<PodResourcesState>(has);
  const checkpoint: { text: Promise<undefined> } = { text: Promise.resolve(undefined) };
  const clock = new HandClock();
  const tokens = await AllocatedTokens.start({
    inventory,
    offer: offerOf(inventory, () => assert.fail("no token is given out twice")),
    podResources: { state, askSoon() {} },
    checkpoint: { read: () => checkpoint.text },
    intervalMs: INTERVAL_MS,
    endConnection: () => assert.fail("there is no connection"),
    clock,
    log: recordingLog(),
  });
  return { inventory, state, checkpoint, clock, tokens, has, hasEnded };
}

const stateOf = (inventory: Inventory) => inventory.get(address)?.state;

test("AllocatedTokens serializes kubelet's answers, however long the checkpoint takes to be read", async () => {
  const { inventory, state, checkpoint, clock, tokens, has, hasEnded } = await nodeWithPod();
  assert.equal(stateOf(inventory), "reserved");
  const slow = Promise.withResolvers<undefined>();
  checkpoint.text = slow.promise;
  state.set(has);
  await settled();
  checkpoint.text = Promise.resolve(undefined);
  state.set(hasEnded);
  await settled();
  slow.resolve(undefined);
  await settled();
  await clock.pass(2 * INTERVAL_MS);
  state.set(hasEnded);
  await settled();
  assert.equal(stateOf(inventory), "idle", "what was answered last counts");
  tokens.close();
});

test("AllocatedTokens counts nothing against a token that was so before its Allocate", async () => {
  const { inventory, state, checkpoint, clock, tokens, hasEnded } = await nodeWithPod();
  const [{ id = "" } = {}] = inventory.devicesOf("d/x");
  for (let at = 0; at < 2; at += 1) {
    state.set(hasEnded);
    await settled();
    await clock.pass(2 * INTERVAL_MS);
  }
  assert.equal(stateOf(inventory), "idle");
  const slow = Promise.withResolvers<undefined>();
  checkpoint.text = slow.promise;
  state.set(hasEnded);
  await settled();
  await clock.pass(2 * INTERVAL_MS);
  tokens.offer.allocate("d/x", [id]);
  checkpoint.text = Promise.resolve(undefined);
  slow.resolve(undefined);
  state.set(hasEnded);
  await settled();
  assert.equal(stateOf(inventory), "reserved", "kubelet has not had the time to write it down");
  tokens.close();
});
