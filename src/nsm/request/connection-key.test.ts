import assert from "node:assert/strict";
import { afterEach, beforeEach, test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { type Connection, ConnectionEventType, MechanismSchema, PathSegmentSchema } from "../../gen/connection_pb.ts";
import type { NetworkServiceRequest } from "../../gen/networkservice_pb.ts";
import { behalfOf, kernelRequest, type Manager, refreshOf } from "../testing/fakes.ts";
import { endStories, Story } from "../testing/story.ts";
import { ConnectionKeys } from "./connection-key.ts";
import type { ConnectionRecord } from "./connections.ts";

afterEach(endStories);

let story: Story;
let evil: Manager;

beforeEach(() => {
  story = new Story();
  evil = story.otherManager("evil");
});

/** Requests a connection with this id of ours, which a caller can choose. */
function requesting(id: string, type: "KERNEL" | "NOOP"): NetworkServiceRequest {
  const message = kernelRequest();
  message.connection?.path?.pathSegments.push(create(PathSegmentSchema, { name: "fwd", id }));
  if (type === "NOOP") message.mechanismPreferences = [create(MechanismSchema, { cls: "LOCAL", type })];
  return message;
}

const keys = () => [...story.deps.connections.keys()];
const idOf = ({ path }: Connection) => path?.pathSegments[2]?.id;

test("a peer that takes an id first locks its true owner out of nothing", async () => {
  const taken = await story.request(requesting("x", "NOOP"), { from: evil });
  const own = await story.request(requesting("x", "KERNEL"));
  assert.deepEqual([idOf(taken), idOf(own), keys()], ["x", "x", ["x", "x (2)"]]);
  await story.request(refreshOf(own));
  await story.close(own);
  assert.deepEqual(keys(), ["x"], "the other one's stays");
  await story.request(requesting("x", "NOOP"), { from: evil });
  await story.close(taken, { from: evil });
  assert.deepEqual([keys(), story.outside.closes.length], [[], 2]);
});

test("two owners that request one id at the same time do not wait for each other", async () => {
  const { promise, resolve } = Promise.withResolvers<void>();
  const [agreeing] = story.outside.replies.values();
  const answers = [...story.outside.replies.keys()];
  story.outside.replies.set(answers[0] ?? "", async (request, ...more) => {
    if (request.connection?.mechanism?.type === undefined && keys().length === 1) await promise;
    return await (agreeing as NonNullable<typeof agreeing>)(request, ...more);
  });
  const slow = story.request(requesting("x", "NOOP"), { from: evil });
  const own = await story.request(requesting("x", "KERNEL"));
  assert.equal(idOf(own), "x");
  resolve();
  await slow;
  assert.deepEqual(keys(), ["x", "x (2)"]);
  await story.close(own);
  await story.close(await slow, { from: evil });
});

test("two clients behind the manager that have one id have two connections", async () => {
  const [victim, client] = ["spiffe://test/victim", "spiffe://test/evil"];
  const taken = await story.request(behalfOf(client, requesting("x", "NOOP")));
  const own = await story.request(behalfOf(victim, requesting("x", "KERNEL")));
  assert.deepEqual([idOf(taken), idOf(own), keys()], ["x", "x", ["x", "x (2)"]]);
  story = story.successor();
  await story.request(behalfOf(victim, refreshOf(own)));
  await story.close(behalfOf(client, refreshOf(taken)).connection ?? taken);
  assert.deepEqual(keys(), ["x (2)"]);
  await story.close(behalfOf(victim, refreshOf(own)).connection ?? own);
  assert.deepEqual(keys(), []);
});

test("a client continues with its own connection rather than with one of its id that was kept without a client", () => {
  const { connections, manager, journal } = story.deps;
  const { spiffeId } = story.manager.peer;
  const named = new ConnectionKeys({ connections, manager, journal });
  for (const [key, owner] of [
    ["x", { spiffeId, isManager: true }],
    ["x (2)", { spiffeId, isManager: true, client: "spiffe://test/a" }],
  ] as const) {
    const state = { connection: { id: "x" } };
    connections.set(key, { id: key, owner, state } as unknown as ConnectionRecord);
  }
  assert.equal(named.enter({ spiffeId, client: "spiffe://test/a" }, "x").key, "x (2)");
  assert.equal(named.enter({ spiffeId, client: "spiffe://test/b" }, "x").key, "x");
  connections.clear();
});

test("two calls under way for one id have one key where the client is one, and two where it is not", () => {
  const { spiffeId } = story.manager.peer;
  const of = (client: string) => ({ spiffeId, client });
  const keysOf = ["spiffe://test/a", "spiffe://test/a", "spiffe://test/b"].map(
    (client) => story.deps.keys.enter(of(client), "x").key,
  );
  assert.deepEqual(keysOf, ["x", "x", "x (2)"]);
});

test("no text names a connection by its key, which would say that another has its id", async () => {
  await story.request(requesting("x", "NOOP"), { from: evil });
  const answer = await story.request(requesting("x", "KERNEL"));
  story.vf.failing.set("detach", new Error("busy"));
  await assert.rejects(story.close(answer));
  const texts = [(await story.failed(refreshOf(answer))).message];
  const large = requesting("x", "KERNEL");
  for (let at = 0; at < 20; at += 1) Object.assign(large.connection?.labels ?? {}, { [at]: "x".repeat(4_000) });
  texts.push((await story.failed(large, { from: story.otherManager("third") })).message);
  story.vf.failing.clear();
  assert.match(texts.join(), /earlier life is still.*one connection may have 65536/);
  for (const text of texts) assert.ok(!/\((2|3)\)/.test(text), text);
});

test("each owner's subscriber hears of its own connection alone, by the id that it knows", async () => {
  const [heard, theirs] = [story.listen(), story.listen(evil)];
  const taken = await story.request(requesting("x", "NOOP"), { from: evil });
  const own = await story.request(requesting("x", "KERNEL"));
  await story.close(taken, { from: evil });
  await story.close(own);
  const types = [ConnectionEventType.INITIAL_STATE_TRANSFER, ConnectionEventType.UPDATE, ConnectionEventType.DELETE];
  for (const [events, type] of [
    [heard, "KERNEL"],
    [theirs, "NOOP"],
  ] as const) {
    assert.deepEqual(
      events.map((event) => event.type),
      types,
    );
    assert.equal(events[1]?.connections["x"]?.mechanism?.type, type);
  }
});

test("both are on disk, and the next process continues both as they were", async () => {
  await story.request(requesting("x", "NOOP"), { from: evil });
  const own = await story.request(requesting("x", "KERNEL"));
  const kept = [...story.journal.kept.values()].map(({ connectionId, id, owner }) => [
    connectionId,
    id,
    owner.isManager,
  ]);
  assert.deepEqual(kept, [
    ["x", undefined, false],
    ["x (2)", "x", true],
  ]);
  story = story.successor();
  assert.deepEqual(keys(), ["x", "x (2)"]);
  const refresh = refreshOf(own);
  await story.request(refresh);
  assert.deepEqual(keys(), ["x", "x (2)"]);
  await story.close(own);
  assert.deepEqual(keys(), ["x"]);
});

test("a successor of the manager continues with what that one made, and not with its own of the same id", async () => {
  const own = await story.request(requesting("x", "KERNEL"));
  const next = story.newManager("nsmgr-b");
  await story.request(refreshOf(own), { from: next });
  assert.deepEqual(keys(), ["x"]);
  await story.close(own, { from: next });
  assert.deepEqual(keys(), []);
});

test("a key that looks like another one's does not become that one", async () => {
  const [first, second] = [story.otherManager("a"), story.otherManager("b")];
  await story.request(requesting("x (2)", "NOOP"), { from: first });
  await story.request(requesting("x", "NOOP"), { from: second });
  await story.request(requesting("x", "KERNEL"));
  assert.deepEqual(keys(), ["x (2)", "x", "x (3)"]);
});

test("ConnectionKeys.enter() leaves the key of a connection that has not come yet to its owner, and frees that of a call that is over", () => {
  const entry = {
    connectionId: "x (2)",
    id: "x",
    owner: { spiffeId: "spiffe://a/nsc", isManager: false },
    stage: "ready",
    mechanism: "NOOP",
  } as const;
  const { connections, manager } = story.deps;
  const left = new Map([[entry.connectionId, entry]]);
  const named = new ConnectionKeys({ connections, manager, journal: { ...story.deps.journal, left } });
  const own = named.enter({ spiffeId: "spiffe://a/nsc" }, "x");
  assert.equal(own.key, "x (2)");
  own.leave();
  const other = named.enter({ spiffeId: "spiffe://a/b" }, "x");
  assert.equal(other.key, "x");
  assert.equal(named.enter({ spiffeId: "spiffe://a/c" }, "x").key, "x (3)");
  other.leave();
  assert.equal(named.enter({ spiffeId: "spiffe://a/d" }, "x").key, "x");
});

test("a Close of what is not known keeps no key: the next owner has the id itself", async () => {
  const { connection } = requesting("x", "NOOP");
  await story.close(connection ?? assert.fail(), { from: evil });
  await story.request(requesting("x", "KERNEL"));
  assert.deepEqual(keys(), ["x"]);
});

test("a peer that becomes the manager continues with its own connection before its predecessor's of the same id", async () => {
  await story.request(requesting("x", "KERNEL"));
  const own = await story.request(requesting("x", "NOOP"), { from: story.otherManager("nsmgr-b") });
  await story.close(own, { from: story.newManager("nsmgr-b") });
  assert.deepEqual(keys(), ["x"]);
});
