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
  assert.ok(story.vf.detachedFrom, "by the namespace that came with the Close");
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

test("adoptAfterRestart() gives a client that does not come back a token's life and a minute", async () => {
  await story.clock.pass(659_000);
  assert.equal(story.connections, 1);
  await story.clock.pass(2_000);
  assert.equal(story.connections, 0);
});

test("adoptAfterRestart() gives a client whose time is nearly up as long, for the manager may find us only when its own time is up", async () => {
  const kept = [...story.journal.kept.values()];
  story = new Story();
  for (const entry of kept) story.adopt({ ...entry, expiresMs: story.clock.now() + 1_000 });
  await story.clock.pass(659_000);
  assert.equal(story.connections, 1);
  await story.clock.pass(2_000);
  assert.equal(story.connections, 0);
});

test("adoptAfterRestart() counts from the first start that has not heard of the client, however many follow", async () => {
  for (const sinceFirstMs of [120_000, 240_000, 360_000, 480_000, 600_000]) {
    await story.clock.pass(120_000);
    story = story.successor();
    assert.equal(story.connections, 1, String(sinceFirstMs));
  }
  await story.clock.pass(61_000);
  assert.equal(story.connections, 0);
});

test("adoptAfterRestart() counts again once the client has been heard of, and gives each start a minute", async () => {
  await story.clock.pass(600_000);
  await story.request(refreshOf(answer));
  story = story.successor();
  await story.clock.pass(659_000);
  assert.equal(story.connections, 1);
  story = story.successor();
  await story.clock.pass(59_000);
  assert.equal(story.connections, 1);
  await story.clock.pass(2_000);
  assert.equal(story.connections, 0);
});

test("adoptAfterRestart() gives a client the time that it has, whatever cannot be written", async () => {
  const kept = [...story.journal.kept.values()];
  story = new Story();
  story.journal.failing.add("ready");
  for (const { unheardMs: _, ...entry } of kept) story.adopt(entry as JournalEntry);
  await settled();
  assert.equal(story.log.of("journal-not-written").length, 1);
  await story.clock.pass(659_000);
  assert.equal(story.connections, 1);
});

test("adoptAfterRestart() keeps other peers out", async () => {
  const failure = await story.failed(refreshOf(answer), { from: story.otherManager("evil") });
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

test("adoptAfterRestart() looks for no endpoint where none had been asked yet", async () => {
  const before = new Story();
  await before.request(kernelRequest());
  story = new Story();
  story.adopt(before.journal.puts.find(({ stage }) => stage === "preparing") as JournalEntry);
  await story.clock.pass(1);
  assert.deepEqual([story.outside.finds, story.outside.closes, story.connections], [[], [], 0]);
});
