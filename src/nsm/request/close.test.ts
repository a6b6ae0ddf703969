import assert from "node:assert/strict";
import { afterEach, beforeEach, test } from "node:test";
import { clone, fromBinary } from "@bufbuild/protobuf";
import { type Connection, ConnectionEventType, ConnectionSchema, State } from "../../gen/connection_pb.ts";
import { RpcError } from "../../rpc/index.ts";
import { toStatus } from "../grpc-status.ts";
import { kernelRequest, PaperFd, refreshOf, settled } from "../testing/fakes.ts";
import { endpointReply } from "../testing/fakes-outside.ts";
import { endStories, Story } from "../testing/story.ts";
import { summaries } from "./connection-summary.ts";
import { takeDownInTurn } from "./teardown.ts";

afterEach(endStories);

let story: Story;
let answer: Connection;
beforeEach(async () => {
  story = new Story();
  answer = await story.request(kernelRequest());
});

test("close() restores the VF, closes at the endpoint and notifies the watchers", async () => {
  const heard = story.listen();
  await story.close(answer);
  assert.deepEqual(story.vf.done.slice(3), ["detach", "give-back"]);
  const [reported] = story.outside.closes;
  assert.equal(reported?.connection.id, "f1");
  assert.equal(reported?.connection.mechanism?.type, "NOOP");
  await settled();
  assert.equal(heard.at(-1)?.type, ConnectionEventType.DELETE);
  assert.deepEqual([story.connections, PaperFd.open], [0, 0]);
  assert.deepEqual(story.journal.drops, ["f1"]);
  assert.ok(story.outside.watches[0]?.isCancelled);
  assert.equal(story.clock.timerCount, 0);
});

test("close() goes by what was stored, not by what the caller's message says", async () => {
  const forged = clone(ConnectionSchema, answer);
  forged.networkServiceEndpointName = "other";
  delete forged.mechanism;
  await story.close(forged);
  assert.equal(story.outside.closes[0]?.connection.networkServiceEndpointName, "nse-1");
  assert.equal(story.connections, 0);
});

test("close() of a connection that is not known succeeds and calls no peer", async () => {
  await story.close(answer);
  await story.close(answer);
  assert.equal(story.outside.closes.length, 1);
});

test("close() whose caller leaves while it waits for a Request ends the connection all the same", async () => {
  const gate = Promise.withResolvers<void>();
  story.outside.replies.set("tcp://nse-1:1", async (request) => {
    await gate.promise;
    return await endpointReply("nse-1")(request);
  });
  const refresh = story.request(refreshOf(answer));
  await settled();
  const caller = new AbortController();
  const closed = story.close(answer, { signal: caller.signal }).catch(() => {}); // its answer has no reader
  await settled();
  caller.abort(new RpcError("CANCELLED", "the caller has gone"));
  gate.resolve();
  await refresh;
  await closed;
  await settled();
  assert.deepEqual([story.connections, story.outside.closes.length], [0, 1]);
});

test("close() by another peer is refused and touches nothing", async () => {
  const failure = await failed(story.close(answer, { from: story.otherManager("evil") }));
  assert.equal(failure.code, "PERMISSION_DENIED");
  assert.deepEqual(story.vf.done.slice(3), []);
});

test("close() with a token that has expired, or of a size that no honest peer sends, is refused and touches nothing", async () => {
  await failed(story.close(answer, { tokenMs: -1 }));
  const large = clone(ConnectionSchema, answer);
  large.labels["long"] = "x".repeat(10_000);
  assert.equal((await failed(story.close(large))).code, "INVALID_ARGUMENT");
  assert.deepEqual([story.connections, story.vf.done.slice(3)], [1, []]);
});

test("close() with an endpoint that is dead cleans our side and says so", async () => {
  story.outside.closeFailure = new RpcError("UNAVAILABLE", "failed to dial nse-1");
  const failure = await failed(story.close(answer));
  assert.equal(failure.message, "errors during client close: failed to dial nse-1");
  assert.equal(failure.code, "UNAVAILABLE");
  assert.equal(story.connections, 0);
  await story.close(answer);
});

test("close() that cannot restore the VF keeps it, tries again, and closes at the endpoint once", async () => {
  story.vf.failing.set("detach", new Error("the driver resists"));
  const failure = await failed(story.close(answer));
  assert.match(failure.message, /errors during close: node: the driver resists/);
  const [summary] = summaries(story.deps.connections);
  assert.deepEqual([summary?.phase, summary?.expiresMs], ["reclaiming", undefined]);
  assert.equal((await story.failed(refreshOf(answer))).code, "UNAVAILABLE");
  story.vf.failing.clear();
  await story.clock.pass(5_000);
  assert.equal(story.connections, 0);
  assert.deepEqual(story.vf.done.slice(-2), ["detach", "give-back"]);
  assert.equal(story.outside.closes.length, 1);
  assert.equal(story.log.of("connection-ended")[0]?.["reason"], "retried");
});

test("close() that is repeated finishes what an earlier one could not", async () => {
  story.vf.failing.set("give-back", new Error("not yet"));
  await failed(story.close(answer));
  story.vf.failing.clear();
  await story.close(answer);
  assert.equal(story.connections, 0);
  assert.equal(PaperFd.open, 0);
});

test("takeDownInTurn() ends a connection whose caller's tokens have long expired", async () => {
  await story.clock.pass(500_000);
  const record = story.deps.connections.get("f1");
  assert.ok(record);
  await takeDownInTurn(story.deps, record, { reason: "pod-gone" });
  assert.equal(story.connections, 0);
});

test("a connection that was closed and made again is not ended by the first one's timer", async () => {
  await story.close(answer);
  await story.request(refreshOf(answer), { tokenMs: 10_000_000 });
  await story.clock.pass(700_000);
  assert.equal(story.connections, 1);
});

test("the death of an endpoint shows as DOWN, once, and a refresh begins a new watch", async () => {
  const heard = story.listen();
  story.outside.watches[0]?.end(new RpcError("UNAVAILABLE", "connection lost"));
  await settled();
  const states = heard.map(({ connections }) => connections["f1"]?.state);
  assert.deepEqual(states, [State.UP, State.DOWN]);
  await story.request(refreshOf(answer));
  assert.equal(story.outside.watches.length, 2);
  await settled();
  assert.equal(heard.at(-1)?.connections["f1"]?.state, State.UP);
});

test("a refresh that the endpoint refuses leaves the client what it has, and shows as DOWN", async () => {
  const heard = story.listen();
  story.outside.replies.set("tcp://nse-1:1", () => {
    throw new RpcError("INTERNAL", "no");
  });
  const failure = await story.failed(refreshOf(answer));
  assert.equal(failure.code, "INTERNAL");
  await settled();
  assert.equal(heard.at(-1)?.connections["f1"]?.state, State.DOWN);
  assert.equal(story.connections, 1);
  assert.deepEqual(story.vf.done.slice(3), []);
});

test("a refresh whose caller leaves shows as nothing: the connection is as before", async () => {
  const heard = story.listen();
  const caller = new AbortController();
  story.outside.replies.set("tcp://nse-1:1", () => {
    const gone = new RpcError("CANCELLED", "the caller has gone");
    caller.abort(gone);
    throw gone;
  });
  assert.equal((await story.failed(refreshOf(answer), { signal: caller.signal })).code, "CANCELLED");
  await settled();
  assert.deepEqual(
    heard.map(({ connections }) => connections["f1"]?.state),
    [State.UP],
  );
});

async function failed(work: Promise<unknown>): Promise<RpcError> {
  try {
    await work;
  } catch (error) {
    return toStatus(error);
  }
  throw new Error("The Close was answered, it should have failed");
}

test("a refresh that is running when the time is up keeps the connection", async () => {
  const gate = Promise.withResolvers<void>();
  story.outside.replies.set("tcp://nse-1:1", async (request) => {
    await gate.promise;
    return await endpointReply("nse-1")(request);
  });
  const refresh = story.request(refreshOf(answer), { tokenMs: 10_000_000 });
  await story.clock.pass(0);
  story.deps.connections.get("f1")?.expiry.restart(0);
  await story.clock.pass(1);
  gate.resolve();
  await refresh;
  await settled();
  assert.equal(story.connections, 1);
});

test("close() writes down that a VF is being reclaimed before it is touched", async () => {
  await story.close(answer);
  assert.deepEqual(
    story.journal.puts.map(({ stage }) => stage),
    ["preparing", "ready", "reclaiming"],
  );
  for (const { connection } of story.journal.puts) {
    const { path } = fromBinary(ConnectionSchema, connection ?? new Uint8Array());
    assert.deepEqual(
      path?.pathSegments.flatMap(({ token, expires }) => (token === "" && !expires ? [] : [token])),
      [],
    );
  }
});
