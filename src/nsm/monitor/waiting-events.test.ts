import assert from "node:assert/strict";
import { test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { ConnectionEventType, ConnectionSchema } from "../../gen/connection_pb.ts";
import { WaitingEvents } from "./waiting-events.ts";

const { UPDATE, DELETE } = ConnectionEventType;

function setUp() {
  const waiting = new WaitingEvents([]);
  const push = (key: string, type: ConnectionEventType = UPDATE, bytes = 200 * 1024) =>
    waiting.push({ key, type, connection: create(ConnectionSchema, { id: key }), bytes });
  const read = () => {
    const event = waiting.next();
    return event && `${event.type === DELETE ? "end of " : ""}${event.key}`;
  };
  return { push, read };
}

test("WaitingEvents keeps the end of what was read for a subscriber that is behind, and once", () => {
  const { push, read } = setUp();
  for (const key of ["f1", "f2", "f3"]) push(key);
  assert.equal(read(), "f1");
  push("f1", DELETE);
  assert.deepEqual([read(), read()], ["f2", "f3"]);
  push("f4");
  assert.equal(read(), "end of f1");
  push("f1");
  push("f1", DELETE);
  assert.deepEqual([read(), read()], ["f4", undefined], "it has come and gone unread");
});

test("WaitingEvents is bounded again after a subscriber has caught up", () => {
  const { push, read } = setUp();
  for (let turn = 0; turn < 20; turn += 1) push(`f${turn}`);
  while (read());
  for (let turn = 0; turn < 20; turn += 1) push("f1");
  let left = 0;
  while (read()) left += 1;
  assert.ok(left <= 2, `${left} events`);
});

test("WaitingEvents keeps for a subscriber that is behind one end of an id that it has read, however often the connection moves", () => {
  const waiting = new WaitingEvents([]);
  const bytes = 200 * 1024;
  let former = { connection: create(ConnectionSchema, { id: "f0" }), bytes };
  waiting.push({ key: "f0", type: UPDATE, ...former });
  const read = () => {
    const event = waiting.next();
    return event && `${event.type === DELETE ? "end of " : ""}${event.connection.id}`;
  };
  assert.equal(read(), "f0");
  for (const id of ["f1", "f2", "f3"]) {
    const moved = { connection: create(ConnectionSchema, { id }), bytes };
    waiting.push({ key: "f0", type: UPDATE, ...moved }, former);
    former = moved;
  }
  assert.deepEqual([read(), read(), read()].sort(), ["end of f0", "f3", undefined]);
  waiting.push({ key: "f0", type: DELETE, ...former });
  assert.equal(read(), "end of f3");
});
