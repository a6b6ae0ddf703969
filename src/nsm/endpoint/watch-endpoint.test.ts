import assert from "node:assert/strict";
import { test } from "node:test";
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { ConnectionEventSchema, ConnectionEventType, ConnectionSchema, State } from "../../gen/connection_pb.ts";
import { changesOf } from "./watch-endpoint.ts";

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
