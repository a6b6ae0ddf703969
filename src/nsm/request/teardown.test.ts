import assert from "node:assert/strict";
import { afterEach, beforeEach, test } from "node:test";
import { until } from "../../../test/scenes/until.ts";
import type { Connection } from "../../gen/connection_pb.ts";
import { RpcError } from "../../rpc/index.ts";
import { kernelRequest, PaperFd, refreshOf, settled } from "../testing/fakes.ts";
import { endpointReply } from "../testing/fakes-outside.ts";
import { endStories, Story } from "../testing/story.ts";
import type { JournalEntry } from "./journal-entry.ts";
import { takeDownInTurn } from "./teardown.ts";

afterEach(endStories);

const LOCAL = "inode://8/12";

let story: Story;
beforeEach(() => {
  story = new Story();
});

/** Established, at an endpoint whose socket came as a descriptor. */
async function atLocalEndpoint(): Promise<Connection> {
  furnishLocal();
  return await story.request(kernelRequest());
}

function furnishLocal(): void {
  story.outside.fds.sent.add(LOCAL);
  story.outside.endpoints = [{ name: "nse-1", networkServiceNames: ["ns1"], url: LOCAL }];
  story.outside.replies.get = (target) => (target.startsWith("unix:") ? endpointReply("nse-1") : undefined);
}

test("the socket of an endpoint stays open as long as the endpoint serves", async () => {
  await atLocalEndpoint();
  await story.clock.pass(60_000);
  assert.equal(PaperFd.open, 2, "with the client's namespace");
});

for (const [says, failure] of [
  ["agrees", undefined],
  ["cannot be reached", new RpcError("UNAVAILABLE", "connection lost")],
] as const) {
  test(`a Close lets go of the socket of an endpoint that ${says}`, async () => {
    const answer = await atLocalEndpoint();
    story.outside.closeFailure = failure;
    await story.close(answer).catch(() => assert.ok(failure));
    assert.equal(PaperFd.open, 1, "its descriptor stays as long as a kept connection may need it");
    await story.clock.pass(1_100);
    assert.equal(PaperFd.open, 0);
  });
}

test("an endpoint that is left for another one is let go of, though its Close fails", async () => {
  const answer = await atLocalEndpoint();
  story.outside.endpoints = [{ name: "nse-2", networkServiceNames: ["ns1"], url: "tcp://nse-2:1" }];
  story.outside.replies.get = (target) => (target.startsWith("tcp:") ? endpointReply("nse-2") : undefined);
  story.outside.closeFailure = new RpcError("UNAVAILABLE", "connection lost");
  const refresh = refreshOf(answer);
  if (refresh.connection) refresh.connection.networkServiceEndpointName = "";
  assert.equal((await story.request(refresh)).networkServiceEndpointName, "nse-2");
  await story.clock.pass(1_100);
  assert.equal(PaperFd.open, 1, "the client's namespace");
});

test("a Close touches nothing before the connection is on disk as reclaiming", async () => {
  const answer = await story.request(kernelRequest());
  story.vf.done.length = 0;
  const release = story.journal.holdBack("reclaiming");
  const closed = story.close(answer);
  await settled();
  assert.deepEqual(
    [story.journal.puts.at(-1)?.stage, story.vf.done, story.outside.closes.length],
    ["reclaiming", [], 0],
  );
  release();
  await closed;
  assert.deepEqual(story.vf.done, ["detach", "give-back"]);
});

test("takeDownInTurn() leaves alone what its client has made again while it waited", async () => {
  const answer = await story.request(kernelRequest());
  const record = story.deps.connections.get("f1") ?? assert.fail();
  const closing = story.close(answer);
  const again = story.request(refreshOf(answer));
  await takeDownInTurn(story.deps, record, { reason: "pod-gone" });
  await closing;
  await again;
  assert.equal(story.connections, 1);
  assert.deepEqual(story.vf.done.slice(-3), ["take", "bind", "attach nsm-1"]);
  assert.equal(story.log.of("connection-ended").length, 1);
});

test("what cannot be restored is tried again, ever later, at least every half minute", async () => {
  const answer = await story.request(kernelRequest());
  story.vf.failing.set("detach", new Error("the driver resists"));
  await assert.rejects(story.close(answer));
  const waits = () => story.log.of("teardown-failed").map(({ retryMs }) => Number(retryMs));
  const turn = () => story.clock.pass(waits().at(-1) ?? 0);
  await until("the restore has been tried nine times", () => waits().length >= 9, { turn });
  for (const [index, longest] of [500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000, 30_000].entries()) {
    const wait = waits()[index] ?? 0;
    assert.ok(wait >= longest / 2 && wait <= longest, `try ${index} came after ${wait} ms`);
  }
  story.vf.failing.clear();
  await story.clock.pass(30_000);
  assert.equal(story.connections, 0);
});

test("request() restores what a previous instance left half done from the namespace that comes with the call", async () => {
  const before = new Story();
  const answer = await before.request(kernelRequest());
  const entry = before.journal.puts.find(({ stage }) => stage === "ready") as JournalEntry;
  story = new Story();
  story.vf.failing.set("detach", new Error("its namespace is not known"));
  story.adopt({ ...entry, stage: "reclaiming" });
  await story.clock.pass(1);
  await settled();
  assert.equal(story.vf.detachedFrom, undefined);
  story.vf.failing.clear();
  await story.request(refreshOf(answer));
  assert.ok(story.vf.detachedFrom, "the VF was looked for without its client's namespace");
});

test("a first Request whose VF is not restored leaves what a later process needs to restore it", async () => {
  story.vf.failing.set("attach", new Error("the driver resists"));
  story.vf.failing.set("detach", new Error("the driver resists"));
  await story.failed(kernelRequest());
  const next = story.successor();
  assert.equal(next.vf.isAway, true);
  await next.clock.pass(1);
  assert.deepEqual(next.vf.done, ["take", "detach", "give-back"]);
});

for (const stage of ["preparing", "ready"] as const) {
  test(`a first Request that cannot be written as ${stage} leaves nothing, not even its VF`, async () => {
    story.journal.failing.add(stage);
    assert.match((await story.failed(kernelRequest())).message, /disk is full/);
    assert.deepEqual([story.vf.done.at(-1), story.connections, story.journal.kept.size], ["give-back", 0, 0]);
  });
}

test("a first Request without a VF that cannot be written leaves no socket of an endpoint", async () => {
  furnishLocal();
  story.journal.failing.add("preparing");
  const message = kernelRequest();
  for (const mechanism of message.mechanismPreferences) Object.assign(mechanism, { type: "NOOP", parameters: {} });
  await story.failed(message);
  await story.clock.pass(1_100);
  assert.equal(PaperFd.open, 0);
});

for (const [step, kind] of [
  ["reclaiming", "put"],
  ["drop", "drop"],
] as const) {
  test(`a Close that cannot be written (${kind}) is carried out all the same, and reported`, async () => {
    const answer = await story.request(kernelRequest());
    story.journal.failing.add(step);
    await story.close(answer);
    assert.deepEqual(story.vf.done.slice(-2), ["detach", "give-back"]);
    assert.deepEqual([story.connections, story.outside.closes.length], [0, 1]);
    assert.equal(story.log.of("journal-not-written").length, 1);
  });
}
