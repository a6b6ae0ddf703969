import assert from "node:assert/strict";
import { test } from "node:test";
import { within } from "../../test/scenes/until.ts";
import { Latest } from "../async/index.ts";
import { Inventory, offerOf } from "../inventory/index.ts";
import { HandClock, settled } from "../nsm/testing/fakes.ts";
import { parsePciAddress } from "../pci/index.ts";
import { recordingLog } from "../telemetry/recording-log.ts";
import { AllocatedTokens } from "./allocated-tokens.ts";
import type { Checkpoint } from "./checkpoint.ts";
import type { PodResourcesState } from "./pod-resources.ts";

const INTERVAL_MS = 1_000;
const pf = parsePciAddress("01:00.0");
const address = parsePciAddress("01:10.0");

const known = (...holders: readonly (readonly [id: string, resource?: string])[]): PodResourcesState => {
  const holder = { pod: "ns/pod", container: "app" };
  const devices = new Map(holders.map(([id, resource = "d/x"]) => [id, { ...holder, resource }]));
  return { kind: "known", holdings: { pods: new Set(holders.length > 0 ? ["ns/pod"] : []), devices } };
};
const hasEnded = known();

interface Before {
  /** What kubelet's file says when this forwarder starts. */
  readonly checkpoint?: Checkpoint;
  readonly said?: PodResourcesState;
  /** How long kubelet says nothing at all. */
  readonly silentMs?: number;
}

/** A node of one VF. Kubelet names no pod. */
async function node({ checkpoint: text, silentMs = 0, said = hasEnded }: Before = {}) {
  const inventory = new Inventory("6ba7b810-9dad-11d1-80b4-00c04fd430c8");
  const facts = { address, pf, index: 0, iommuGroup: undefined, numaNode: undefined, driver: "igbvf" };
  inventory.sync(pf, [{ ...facts, kernelDriver: "igbvf", resources: ["d/x"] }]);
  const state = new Latest<PodResourcesState>(silentMs > 0 ? undefined : said);
  const checkpoint: { text: Promise<Checkpoint | undefined> } = { text: Promise.resolve(text) };
  const [clock, log] = [new HandClock(), recordingLog()];
  const seen = { requested: 0, ended: [] as string[] };
  const ending: { fails: boolean } = { fails: false };
  const starting = AllocatedTokens.start({
    inventory,
    offer: offerOf(inventory, () => assert.fail("no token is given out twice")),
    podResources: { state, querySoon: () => seen.requested++ },
    checkpoint: { read: () => checkpoint.text },
    intervalMs: INTERVAL_MS,
    async endConnection(connectionId) {
      seen.ended.push(connectionId);
      if (ending.fails) throw new Error("its endpoint is away");
    },
    clock,
    log,
  });
  if (silentMs > 0) await clock.pass(silentMs);
  const tokens = await within("it has started", starting);
  const say = async (now: PodResourcesState, afterMs = 0) => {
    await clock.pass(afterMs);
    state.set(now);
    await settled();
  };
  return { inventory, state, checkpoint, clock, log, tokens, seen, ending, say };
}

/** The token of the only VF: it is made of the node's secret and the VF's address, so it is the same on every node here. */
const tokenId = await node().then(({ inventory, tokens }) => {
  tokens.close();
  return inventory.devicesOf("d/x")[0]?.id ?? "";
});

/** A node of one VF, whose token a pod has since a previous instance. */
async function nodeWithPod() {
  const has = known([tokenId]);
  return { ...(await node({ said: has })), has, hasEnded };
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

test("AllocatedTokens frees a token of Allocate that no pod ever had, and asks kubelet soon after each", async () => {
  const { inventory, tokens, seen, say } = await node();
  tokens.offer.allocate("d/x", [tokenId]);
  assert.equal(seen.requested, 1);
  await say(hasEnded);
  await say(hasEnded, 2 * INTERVAL_MS - 1);
  assert.equal(stateOf(inventory), "reserved");
  await say(hasEnded, 1);
  assert.equal(stateOf(inventory), "idle");
  tokens.close();
});

test("AllocatedTokens keeps nothing of an Allocate that was refused", async () => {
  const { tokens, seen, say, log } = await node();
  assert.throws(() => tokens.offer.allocate("d/x", [tokenId, "sriov-unknown"]), { fault: { kind: "unknown-token" } });
  await say(hasEnded);
  await say(hasEnded, 2 * INTERVAL_MS);
  assert.deepEqual([seen.requested, log.of("token-released")], [0, []]);
  tokens.close();
});

test("AllocatedTokens starts the grace again when kubelet has said nothing meanwhile", async () => {
  const { inventory, tokens, say } = await nodeWithPod();
  await say(hasEnded);
  await say({ kind: "unknown", problem: "it restarts" }, INTERVAL_MS);
  await say(hasEnded, INTERVAL_MS);
  assert.equal(stateOf(inventory), "reserved");
  await say(hasEnded, 2 * INTERVAL_MS);
  assert.equal(stateOf(inventory), "idle");
  tokens.close();
});

test("AllocatedTokens does not count the time in which the checkpoint is read", async () => {
  const { inventory, checkpoint, clock, tokens, say } = await nodeWithPod();
  await say(hasEnded);
  const slow = Promise.withResolvers<undefined>();
  checkpoint.text = slow.promise;
  await say(hasEnded, 1);
  await clock.pass(2 * INTERVAL_MS);
  slow.resolve(undefined);
  await settled();
  assert.equal(stateOf(inventory), "reserved", "what was said is of before the grace has passed");
  tokens.close();
});

for (const [state, ended] of [
  ["preparing", []],
  ["ready", ["c1"]],
] as const) {
  test(`AllocatedTokens of a connection that is ${state} and whose token no pod has: ${ended.length} ended`, async () => {
    const { inventory, tokens, seen, ending, say, log } = await node();
    ending.fails = true;
    inventory.adopt({ connectionId: "c1", tokenId, address, use: "kernel", state });
    await say(hasEnded);
    await say(hasEnded, 2 * INTERVAL_MS);
    assert.deepEqual(seen.ended, ended);
    assert.deepEqual(
      log.of("connection-of-dead-pod-not-closed").map(({ connection }) => connection),
      ended,
    );
    tokens.close();
  });
}

test("AllocatedTokens ends the connection that came up while the checkpoint was read", async () => {
  const { inventory, checkpoint, tokens, seen, say } = await nodeWithPod();
  await say(hasEnded);
  const slow = Promise.withResolvers<undefined>();
  checkpoint.text = slow.promise;
  await say(hasEnded, 2 * INTERVAL_MS);
  inventory.adopt({ connectionId: "c1", tokenId, address, use: "kernel", state: "ready" });
  slow.resolve(undefined);
  await settled();
  assert.deepEqual(seen.ended, ["c1"]);
  tokens.close();
});

test("AllocatedTokens reserves what the checkpoint names from the start on, but nothing of another plugin", async () => {
  const foreign = tokenId.replace(/.$/, (last) => (last === "0" ? "1" : "0"));
  const entry = (resource: string) => ({ podUid: "uid", container: "app", resource });
  const checkpoint: Checkpoint = new Map([
    [tokenId, entry("d/x")],
    [foreign, entry("vendor.example/gpu")],
    ["0000:3b:00.1", entry("d/x")],
  ]);
  const { inventory, tokens, say, log } = await node({ checkpoint, said: { kind: "unknown", problem: "it starts" } });
  assert.equal(stateOf(inventory), "reserved");
  await say(known([foreign, "vendor.example/gpu"], ["0000:3b:00.2"]));
  assert.equal(log.of("token-adopted").length, 1);
  assert.equal(inventory.resourceOf(foreign), undefined);
  tokens.close();
});

test("AllocatedTokens waits some seconds for kubelet's first word, and takes in later what it says", async () => {
  const { inventory, clock, log, tokens, say } = await node({ silentMs: 3_000 });
  assert.match(
    String(log.of("tokens-of-pods-unknown")[0]?.["problem"]),
    /kubelet's list of pods took longer than 3000 ms/,
  );
  assert.equal(clock.timerCount, 0);
  await say(known([tokenId]));
  assert.equal(stateOf(inventory), "reserved");
  tokens.close();
});

test("AllocatedTokens observes on after an answer that could not be judged, until it is closed", async () => {
  const { inventory, checkpoint, clock, tokens, say, log } = await nodeWithPod();
  assert.equal(clock.timerCount, 0, "kubelet's first word is here: nothing waits for it");
  checkpoint.text = Promise.reject(new Error("out of descriptors"));
  checkpoint.text.catch(() => {}); // it is read later
  await say(hasEnded);
  assert.equal(log.of("tokens-of-pods-unknown").length, 1);
  checkpoint.text = Promise.resolve(undefined);
  await say(hasEnded);
  await say(hasEnded, 2 * INTERVAL_MS);
  assert.equal(stateOf(inventory), "idle");
  tokens.close();
  await say(known([tokenId]));
  assert.equal(stateOf(inventory), "idle");
});
