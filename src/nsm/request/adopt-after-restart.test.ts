import assert from "node:assert/strict";
import { afterEach, beforeEach, test } from "node:test";
import { type Connection, State } from "../../gen/connection_pb.ts";
import { kernelRequest, refreshOf, settled } from "../testing/fakes.ts";
import { endStories, Story } from "../testing/story.ts";
import type { JournalEntry } from "./journal-entry.ts";

afterEach(endStories);

let story: Story;
let answer: Connection;

// What one process answered and kept, another one takes up.
beforeEach(async () => {
  const before = new Story();
  answer = await before.request(kernelRequest());
  const entry = before.journal.puts.find(({ stage }) => stage === "ready") as JournalEntry;
  story = new Story();
  story.adopt(entry);
});

test("adoptAfterRestart() shows the connection to its manager and touches nothing", async () => {
  const heard = story.listen();
  await settled();
  assert.equal(heard[0]?.connections["f1"]?.state, State.UP);
  assert.deepEqual(story.vf.done, ["take"]);
});

test("adoptAfterRestart() lets a refresh continue with the same virtual function", async () => {
  const refreshed = await story.request(refreshOf(answer));
  assert.equal(refreshed.path?.pathSegments[2]?.id, "f1");
  assert.deepEqual(story.vf.done, ["take", "attach nsm-1"]);
  assert.equal(story.connections, 1);
});

test("adoptAfterRestart() lets a Close find the endpoint and restore the VF", async () => {
  await story.close(answer);
  assert.equal(story.outside.closes[0]?.connection.id, "f1");
  assert.deepEqual(story.vf.done, ["take", "detach", "give-back"]);
});

test("adoptAfterRestart() lets a Close bring the endpoint the tokens that no disk keeps", async () => {
  await story.close(answer);
  const segments = story.outside.closes[0]?.connection.path?.pathSegments ?? [];
  assert.deepEqual(
    segments.slice(0, 3).map(({ name, token, expires }) => [name, token !== "", name === "client" || !!expires]),
    ["client", "nsmgr", "fwd"].map((name) => [name, true, true]),
  );
});

test("adoptAfterRestart() leaves alone what its client has made again before", async () => {
  const kept = [...story.journal.kept.values()];
  story = new Story();
  answer = await story.request(kernelRequest());
  const [record, done] = [story.deps.connections.get("f1"), [...story.vf.done]];
  for (const entry of kept) story.adopt(entry);
  assert.equal(story.deps.connections.get("f1"), record);
  assert.deepEqual(story.vf.done, done);
});

test("adoptAfterRestart() gives a client that does not come back a minute, then its token's time", async () => {
  await story.clock.pass(599_000);
  assert.equal(story.connections, 1);
  await story.clock.pass(2_000);
  assert.equal(story.connections, 0);
});

test("adoptAfterRestart() gives a client whose time is nearly up a minute to come back", async () => {
  const kept = [...story.journal.kept.values()];
  story = new Story();
  for (const entry of kept) story.adopt({ ...entry, expiresMs: story.clock.now() + 1_000 });
  await story.clock.pass(59_000);
  assert.equal(story.connections, 1);
  await story.clock.pass(2_000);
  assert.equal(story.connections, 0);
});

test("adoptAfterRestart() keeps other peers out", async () => {
  const failure = await story.failed(refreshOf(answer), { from: story.stranger("evil") });
  assert.equal(failure.code, "PERMISSION_DENIED");
});

test("adoptAfterRestart() takes down at once what was half done, and closes at its endpoint", async () => {
  const before = new Story();
  await before.request(kernelRequest());
  const entry = before.journal.puts.find(({ stage }) => stage === "ready") as JournalEntry;
  for (const stage of ["preparing", "reclaiming"] as const) {
    story = new Story();
    story.adopt({ ...entry, stage });
    const heard = story.listen();
    await story.clock.pass(1);
    await settled();
    assert.deepEqual(story.vf.done, ["take", "detach", "give-back"]);
    assert.deepEqual(Object.keys(heard[0]?.connections ?? {}), []);
    assert.deepEqual([story.outside.closes.length, story.connections, story.journal.drops], [1, 0, ["f1"]]);
  }
});

test("adoptAfterRestart() makes again what was half done and resisted, when its client sends the Request again", async () => {
  const before = new Story();
  await before.request(kernelRequest());
  const entry = before.journal.puts.find(({ stage }) => stage === "ready") as JournalEntry;
  story = new Story();
  story.vf.failing.set("detach", new Error("its namespace is not known"));
  story.adopt({ ...entry, stage: "reclaiming" });
  await story.clock.pass(1);
  await settled();
  assert.equal(story.connections, 1);
  story.vf.failing.delete("detach");
  await story.request(refreshOf(answer));
  assert.deepEqual(story.vf.done.slice(0, 6), ["take", "detach fails", "detach", "give-back", "take", "bind"]);
});
