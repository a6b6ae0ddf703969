import assert from "node:assert/strict";
import { test } from "node:test";
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import {
  type ConnectionEvent,
  ConnectionEventSchema,
  ConnectionEventType,
  ConnectionSchema,
  PathSegmentSchema,
  State,
} from "../../gen/connection_pb.ts";
import { ConnectionContextSchema } from "../../gen/connectioncontext_pb.ts";
import { RpcError } from "../../rpc/index.ts";
import type { Caller } from "../peers.ts";
import { peerNamed, settled } from "../testing/fakes.ts";
import { PaperStream } from "../testing/fakes-outside.ts";
import { changesOf, watchEndpoint } from "./watch-endpoint.ts";

const { INITIAL_STATE_TRANSFER, UPDATE, DELETE } = ConnectionEventType;
type Theirs = MessageInitShape<typeof ConnectionSchema>;

const rows: readonly {
  readonly says: string;
  readonly type: ConnectionEventType;
  readonly theirs: Theirs;
  readonly states: readonly State[];
}[] = [
  { says: "an initial transfer of the same", type: INITIAL_STATE_TRANSFER, theirs: {}, states: [] },
  {
    says: "an initial transfer with another context",
    type: INITIAL_STATE_TRANSFER,
    theirs: { context: { MTU: 1400 } },
    states: [State.UP],
  },
  {
    says: "an initial transfer that is down",
    type: INITIAL_STATE_TRANSFER,
    theirs: { state: State.DOWN },
    states: [State.DOWN],
  },
  { says: "an update of the same", type: UPDATE, theirs: {}, states: [] },
  {
    says: "an update that asks for a refresh",
    type: UPDATE,
    theirs: { state: State.REFRESH_REQUESTED },
    states: [State.REFRESH_REQUESTED],
  },
  { says: "a deletion", type: DELETE, theirs: {}, states: [State.DOWN] },
  { says: "a deletion of another connection", type: DELETE, theirs: { path: pathTo("f2") }, states: [] },
  {
    says: "an update further down the path",
    type: UPDATE,
    theirs: { state: State.DOWN, path: { ...pathTo("f1"), index: 4 } },
    states: [],
  },
  {
    says: "an update with an index out of range",
    type: UPDATE,
    theirs: { state: State.DOWN, path: { ...pathTo("f1"), index: 4_000_000_000 } },
    states: [],
  },
  { says: "an update without a path", type: UPDATE, theirs: { state: State.DOWN, path: {} }, states: [] },
];

for (const { says, type, theirs, states } of rows) {
  test(`changesOf() makes ${states.length === 0 ? "nothing" : states.map(String).join()} of ${says}`, () => {
    const event = create(ConnectionEventSchema, {
      type,
      connections: { e1: create(ConnectionSchema, { ...base(), ...theirs } as Theirs) },
    });
    const changes = changesOf(event, ours());
    assert.deepEqual(
      changes.map(({ state }) => state),
      states,
    );
    assert.ok(changes.every(({ id, path }) => id === "f1" && path?.index === 2));
  });
}

test("changesOf() lets the next hop change nothing on our side of the path", () => {
  const theirs = create(ConnectionSchema, { ...base(), state: State.DOWN } as Theirs);
  const first = theirs.path?.pathSegments[0];
  if (first) first.id = "victim";
  const [changed] = changesOf(create(ConnectionEventSchema, { type: UPDATE, connections: { e1: theirs } }), ours());
  assert.equal(changed?.path?.pathSegments[0]?.id, "c1");
});

test("changesOf() takes the endpoint's context and the path behind us, and takes them away where it has none", () => {
  const connection = ours();
  connection.context = create(ConnectionContextSchema, { MTU: 1400 });
  const theirs = create(ConnectionSchema, { ...base(), state: State.DOWN } as Theirs);
  for (const [at, name] of ["fwd-of-theirs", "nse-2", "nse-3"].entries()) {
    if (theirs.path) theirs.path.pathSegments[at + 2] = create(PathSegmentSchema, { name, id: at === 0 ? "f1" : name });
  }
  const [changed] = changesOf(eventOf(UPDATE, theirs), connection);
  assert.equal(changed?.context, undefined);
  assert.deepEqual(
    changed?.path?.pathSegments.map(({ name }) => name),
    ["c", "m", "fwd", "nse-2", "nse-3"],
  );
  assert.equal(connection.path?.pathSegments.length, 4, "what was there before is left as it is");
});

test("changesOf() compares each connection of an event with the one before", () => {
  const up = create(ConnectionSchema, base());
  const down = create(ConnectionSchema, { ...base(), state: State.DOWN } as Theirs);
  const states = (...list: (typeof up)[]) => changesOf(eventOf(UPDATE, ...list), ours()).map(({ state }) => state);
  assert.deepEqual(states(down, up, up), [State.DOWN, State.UP]);
  const fresh = create(ConnectionSchema, { ...base(), context: { MTU: 1400 } } as Theirs);
  assert.equal(changesOf(eventOf(INITIAL_STATE_TRANSFER, fresh, fresh), ours()).length, 1);
  assert.equal(changesOf(eventOf(INITIAL_STATE_TRANSFER, fresh, up), ours()).length, 2);
});

test("changesOf() takes no path of an initial transfer that says the same otherwise", () => {
  const theirs = create(ConnectionSchema, base());
  theirs.path?.pathSegments.push(create(PathSegmentSchema, { name: "behind", id: "b1" }));
  assert.equal(changesOf(eventOf(INITIAL_STATE_TRANSFER, theirs), ours()).length, 0);
  assert.equal(changesOf(eventOf(UPDATE, theirs), ours()).length, 1);
});

test("changesOf() reads a bounded number of connections, none that is too large, and what is admitted", () => {
  const down = create(ConnectionSchema, { ...base(), state: State.DOWN } as Theirs);
  const foreign = create(ConnectionSchema, { ...base(), path: pathTo("f2") } as Theirs);
  const foreigners = (count: number) => Array.from({ length: count }, () => foreign);
  assert.equal(changesOf(eventOf(UPDATE, ...foreigners(63), down), ours()).length, 1);
  assert.equal(changesOf(eventOf(UPDATE, ...foreigners(64), down), ours()).length, 0);
  assert.equal(changesOf(eventOf(UPDATE, down), ours(), () => false).length, 0);
  for (let more = 0; more < 100; more++) down.path?.pathSegments.push(create(PathSegmentSchema));
  assert.equal(changesOf(eventOf(UPDATE, down), ours()).length, 0);
});

test("watchEndpoint() compares with what was last, also after a refresh, and says once that the endpoint is lost", async () => {
  const { stream, watch, reported } = watching();
  const down = create(ConnectionSchema, { ...base(), state: State.DOWN } as Theirs);
  stream.push(eventOf(UPDATE, down));
  stream.push(eventOf(UPDATE, down));
  await settled();
  assert.deepEqual(reported, ["DOWN"]);
  watch.rebase(ours());
  stream.push(eventOf(UPDATE, down));
  await settled();
  assert.deepEqual(reported, ["DOWN", "DOWN"]);
  watch.rebase(ours());
  stream.end(new RpcError("UNAVAILABLE", "connection lost"));
  await settled();
  assert.deepEqual(reported.slice(2), ["lost: connection lost", "DOWN"]);
  assert.equal(watch.isAlive, false);
});

test("watchEndpoint() takes an endpoint without a monitor for lost to watch, and not for down", async () => {
  const { stream, watch, reported } = watching();
  stream.end(new RpcError("UNIMPLEMENTED", "no monitor"));
  await settled();
  assert.deepEqual([reported, watch.isAlive], [["lost: no monitor"], false]);
});

test("EndpointWatch.stop() of one that is silent reports nothing of its end", async () => {
  const { watch, reported } = watching();
  await settled();
  watch.stop();
  await settled();
  assert.deepEqual(reported, []);
});

test("EndpointWatch.stop() ends the stream; what is on its way, and its end, are heard no more", async () => {
  const { stream, watch, reported } = watching();
  stream.push(eventOf(UPDATE, create(ConnectionSchema, { ...base(), state: State.DOWN } as Theirs)));
  watch.stop();
  await settled();
  assert.equal(watch.isAlive, false);
  await settled();
  assert.deepEqual([reported, stream.isCancelled], [[], true]);
});

function eventOf(type: ConnectionEventType, ...list: readonly ReturnType<typeof ours>[]) {
  const connections = Object.fromEntries(list.map((connection, at) => [`e${at}`, connection]));
  return create(ConnectionEventSchema, { type, connections });
}

/** A watch of `ours` with what it reports. */
function watching() {
  const reported: string[] = [];
  const stream = new PaperStream<ConnectionEvent>({ peer: peerNamed("nse-1"), fds: undefined });
  const caller = { stream: () => stream } as unknown as Caller;
  const listener = {
    admits: () => true,
    changed: ({ state }: { readonly state: State }) => void reported.push(state === State.DOWN ? "DOWN" : "other"),
    lost: (error: unknown) => void reported.push(`lost: ${(error as Error).message}`),
  };
  return { stream, reported, watch: watchEndpoint({ caller }, "tcp://nse-1:1", { connection: ours(), listener }) };
}

function ours() {
  const connection = create(ConnectionSchema, base());
  connection.id = "f1";
  if (connection.path) connection.path.index = 2;
  return connection;
}

function base(): Theirs {
  return { id: "e1", path: { ...pathTo("f1"), index: 3 } } as Theirs;
}

function pathTo(own: string) {
  const ids = [
    ["c", "c1"],
    ["m", "m1"],
    ["fwd", own],
    ["nse-1", "e1"],
  ] as const;
  return { index: 3, pathSegments: ids.map(([name, id]) => ({ name, id })) } as NonNullable<Theirs["path"]>;
}

test("changesOf() compares nothing with a change that was not admitted", () => {
  const large = create(ConnectionSchema, { ...base(), context: { MTU: 1400 } } as Theirs);
  let queries = 0;
  const changes = changesOf(eventOf(UPDATE, large, large), ours(), () => ++queries > 1);
  assert.deepEqual([queries, changes.length], [2, 1], "there is room the second time");
});
