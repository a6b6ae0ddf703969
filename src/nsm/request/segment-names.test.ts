// A forwarder that is called otherwise than the one before it: its connections stand, and the manager finds them by what it knows.
import assert from "node:assert/strict";
import { afterEach, beforeEach, test } from "node:test";
import { clone, create } from "@bufbuild/protobuf";
import { type Connection, ConnectionSchema, PathSegmentSchema } from "../../gen/connection_pb.ts";
import { kernelRequest, refreshOf } from "../testing/fakes.ts";
import { endStories, Story } from "../testing/story.ts";
import type { ConnectionRecord } from "./connections.ts";
import { SegmentNames } from "./segment-names.ts";

afterEach(endStories);

let story: Story;
let first: Connection;

beforeEach(async () => {
  const before = new Story();
  first = await before.request(kernelRequest());
  story = before.successor("fwd-b");
  story.vf.done.length = 0;
});

const segmentOf = ({ path }: Connection) => `${path?.pathSegments[2]?.name} ${path?.pathSegments[2]?.id}`;
const earlier = () => story.deps.names.earlier.value;

test("a connection that was made under an earlier name keeps its id, and has the name of the socket that its Request came to", async () => {
  assert.deepEqual(earlier(), ["fwd"]);
  const under = await story.request(refreshOf(first), { under: "fwd" });
  assert.deepEqual([segmentOf(under), earlier()], ["fwd f1", ["fwd"]]);
  const own = await story.request(refreshOf(first));
  assert.deepEqual([segmentOf(own), earlier()], ["fwd-b f1", []]);
  assert.deepEqual(
    story.outside.requests.map(({ connection }) => segmentOf(connection ?? assert.fail())),
    ["fwd f1", "fwd-b f1"],
  );
  assert.equal(story.connections, 1);
  assert.ok(!story.vf.done.includes("detach"), String(story.vf.done));
});

test("a next instance knows a connection by the name that it had last", async () => {
  await story.request(refreshOf(first));
  story = story.successor("fwd-c");
  assert.deepEqual(earlier(), ["fwd-b"]);
  story = story.successor("fwd-b");
  assert.deepEqual(earlier(), []);
});

test("a path may name us as before, and may not name us as nothing of ours was", async () => {
  const named = (name: string, id: string) => {
    const message = refreshOf(first);
    const segment = message.connection?.path?.pathSegments[2];
    Object.assign(segment ?? {}, { name, id });
    return message;
  };
  assert.equal(segmentOf(await story.request(named("fwd-z", "f1"))).split(" ")[0], "fwd-b");
  const { connections } = story.deps;
  assert.deepEqual(
    [...connections.values()].map(({ state }) => state.connection.id === "f1"),
    [false],
    "by its token the client continues, and under a new id",
  );
});

test("an earlier name serves what we know, and no new connection, whatever its path says", async () => {
  story.deps.names.setRegistered("fwd", true);
  const claimed = kernelRequest({}, "m2");
  claimed.connection?.path?.pathSegments.push(create(PathSegmentSchema, { name: "fwd", id: "anything" }));
  for (const message of [kernelRequest({}, "m2"), claimed]) {
    const failure = await story.failed(message, { under: "fwd" });
    assert.equal(failure.code, "UNAVAILABLE");
    assert.match(failure.message, /Cannot serve this connection under fwd: it is an earlier name of this forwarder/);
  }
  const answered = await story.request(refreshOf(first), { under: "fwd" });
  const closed = story.close(answered, { under: "fwd" });
  await story.failed(refreshOf(first), { under: "fwd" }); // it was known when this came
  await closed;
  assert.deepEqual([story.connections, earlier()], [0, []]);
  assert.match(segmentOf(await story.request(claimed)), /^fwd-b /); // the manager's next candidate
});

test("a manager that tries all names of ours when a Request has failed asks the endpoint under two of them at most", async () => {
  for (const name of ["fwd", "fwd-0", "fwd-1"]) story.deps.names.setRegistered(name, true);
  const failing = () => Promise.reject(new Error("restarting"));
  const [url, reply] = [...story.outside.replies][0] ?? assert.fail();
  story.outside.replies.set(url, failing);
  for (const under of ["fwd", undefined, "fwd-0", "fwd-1"]) {
    await story.failed(refreshOf(first), under === undefined ? {} : { under });
  }
  assert.equal(story.outside.requests.length, 2);
  story.outside.replies.set(url, reply);
  const moved = refreshOf(first);
  Object.assign(moved.connection?.path?.pathSegments[2] ?? {}, { name: "fwd-0" });
  assert.equal(
    segmentOf(await story.request(moved, { under: "fwd" })),
    "fwd f1",
    "the answer under fwd was lost before",
  );
});

test("a Close where a socket of another name was is not the client's, as long as the manager finds us by that name", async () => {
  story.deps.names.setRegistered("fwd", true);
  await story.close(first);
  assert.deepEqual([story.connections, story.vf.done.includes("detach")], [1, false]);
  await story.request(refreshOf(first));
  await story.close(first);
  assert.equal(story.connections, 1, "it is known by our own name now, and this came by the former path");
  story.deps.names.setRegistered("fwd", false);
  const { connection } = refreshOf(await story.request(refreshOf(first)));
  await story.close(connection ?? assert.fail(), { under: "fwd" });
  assert.equal(story.connections, 1, "it is known by our own name, and this came to the socket of another");
  await story.close(connection ?? assert.fail());
  assert.equal(story.connections, 0);
});

for (const { where, said } of [
  { where: "an earlier name", said: { under: "fwd" } },
  { where: "our own name, where the registry does not lead to us by the earlier one", said: {} },
]) {
  test(`a Close that is the first of a connection since our start, under ${where}, waits for a Request that may follow`, async () => {
    await story.close(first, said);
    await story.clock.pass(14_000);
    const answered = await story.request(refreshOf(first), said);
    await story.clock.pass(15_000);
    assert.deepEqual([story.connections, story.vf.done.includes("detach")], [1, false]);
    story = story.successor("fwd-c");
    await story.close(answered, said);
    await story.clock.pass(15_000);
    assert.deepEqual([story.connections, story.vf.done.includes("detach")], [0, true]);
  });
}

test("a Close by our own name of today ends its connection at once, also the first since our start", async () => {
  const own = await story.request(refreshOf(first));
  story = story.successor("fwd-b");
  await story.close(own);
  assert.equal(story.connections, 0);
});

test("a Close that is held back ends nothing of a client that has come back, though its Request fails", async () => {
  const { promise: failing, reject } = Promise.withResolvers<Connection>();
  story.outside.replies.set("tcp://nse-1:1", () => failing);
  await story.close(first, { under: "fwd" });
  await story.close(first, { under: "fwd" });
  await story.clock.pass(10_000);
  const failed = story.failed(refreshOf(first), { under: "fwd" });
  await story.clock.pass(10_000);
  reject(new Error("the endpoint restarts"));
  await failed;
  await story.clock.pass(600_000);
  assert.equal(story.connections, 1);
  await story.clock.pass(60_000);
  assert.equal(story.connections, 0, "the time that it had before is that of a client that does not come");
});

test("a Close that is held back is so once, and its repetitions postpone nothing", async () => {
  await story.close(first, { under: "fwd" });
  await story.clock.pass(14_000);
  await story.close(first, { under: "fwd" });
  await story.clock.pass(1_000);
  assert.equal(story.connections, 0);
});

/** A connection under this name, of this client behind the manager. */
function underName(name: string, client: string, holdsVf: boolean): ConnectionRecord {
  const [record] = story.deps.connections.values();
  assert.ok(record);
  const { state } = record;
  const connection = clone(ConnectionSchema, state.connection);
  Object.assign(connection.path?.pathSegments[2] ?? {}, { name });
  const owner = { ...record.owner, isManager: true, client };
  return { ...record, owner, holdsVf, state: { ...state, connection } } as ConnectionRecord;
}

test("SegmentNames has names first under which most clients have a VF, then those of most clients", () => {
  const rows: readonly [name: string, client: string, holdsVf: boolean][] = [
    ["a", "c1", false],
    ["a", "c1", false],
    ["a", "c1", false],
    ["b", "c1", false],
    ["b", "c2", false],
    ["c", "c1", true],
    ["d", "c1", true],
    ["d", "c2", true],
  ];
  const connections = new Map(rows.map((row, nth) => [`${nth}`, underName(...row)]));
  const names = new SegmentNames({ own: "fwd-b", connections, journal: story.journal });
  assert.deepEqual(names.earlier.value, ["d", "c", "b", "a"]);
});

test("SegmentNames.changed() reads the connection that has changed and no other, and orders names as a new start would", () => {
  class ByKeyOnly extends Map<string, ConnectionRecord> {
    override values(): never {
      throw new Error("all are passed over");
    }
  }
  const journal = { put: async () => {}, drop: async () => {} };
  const [connections, same] = [new ByKeyOnly(), new Map<string, ConnectionRecord>()];
  const names = new SegmentNames({ own: "fwd-b", connections, journal });
  let drawn = 7;
  const draw = (below: number) => {
    drawn = (drawn * 48_271) % 2_147_483_647; // of Park and Miller
    return drawn % below;
  };
  for (let step = 0; step < 500; step += 1) {
    const key = `${draw(12)}`;
    const record = underName(["fwd-b", "a", "b", "c"][draw(4)] ?? "", `c${draw(3)}`, draw(2) === 0);
    for (const map of [connections, same]) step % 4 === 0 ? map.delete(key) : map.set(key, record);
    names.changed(key);
    const fresh = new SegmentNames({ own: "fwd-b", connections: same, journal });
    const ranked = ({ earlier: { value = [] } }: SegmentNames) => value.map((name) => clientsUnder(same, name));
    assert.deepEqual(
      [ranked(names), names.earlier.value?.toSorted()],
      [ranked(fresh), fresh.earlier.value?.toSorted()],
    );
  }
});

/** Of a name: clients with a VF, then all. */
function clientsUnder(connections: ReadonlyMap<string, ConnectionRecord>, name: string): string {
  const under = [...connections.values()].filter(({ state }) => state.connection.path?.pathSegments[2]?.name === name);
  const count = (some: readonly ConnectionRecord[]) => new Set(some.map(({ owner }) => owner.client)).size;
  return `${count(under.filter(({ holdsVf }) => holdsVf))}.${count(under)}`;
}

test("SegmentNames has a name no more when the last of its connections is dropped before it is continued", () => {
  const left = new Map(story.journal.kept);
  const listeners: ((connectionId: string) => void)[] = [];
  const onLeftDropped = (listener: (connectionId: string) => void) => void listeners.push(listener);
  const journal = { put: async () => {}, drop: async () => {}, left, onLeftDropped };
  const names = new SegmentNames({ own: "fwd-b", connections: new Map(), journal });
  assert.deepEqual(names.earlier.value, ["fwd"]);
  const [id = assert.fail()] = left.keys();
  left.clear();
  for (const dropped of listeners) dropped(id);
  assert.deepEqual(names.earlier.value, []);
});

test("SegmentNames counts connections that have not come yet, and survives what cannot be read", () => {
  const { connections } = story.deps;
  const entries = [...story.journal.kept.values()];
  const broken = { ...(entries[0] ?? assert.fail()), connectionId: "b", connection: new Uint8Array([255]) };
  const left = new Map([...entries, broken].map((entry) => [entry.connectionId, entry]));
  const names = new SegmentNames({
    own: "fwd-b",
    connections: new Map(),
    journal: { ...story.journal, left } as never,
  });
  assert.deepEqual(names.earlier.value, ["fwd"]);
  assert.ok(names.isOurs(create(PathSegmentSchema, { name: "fwd", id: "f1" })));
  assert.ok(names.isOurs(create(PathSegmentSchema, { name: "fwd-b", id: "f1" })));
  assert.ok(!names.isOurs(create(PathSegmentSchema, { name: "fwd", id: "f2" })));
  assert.ok(!names.isOurs(create(PathSegmentSchema, { name: "fwd-z", id: "f1" })));
  assert.equal(connections.size, 1);
});
