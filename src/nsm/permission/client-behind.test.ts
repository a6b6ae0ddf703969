import assert from "node:assert/strict";
import { test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { ConnectionSchema } from "../../gen/connection_pb.ts";
import { paperToken } from "../testing/fakes.ts";
import { ClientCalls, clientBehind, clientShare, UNIDENTIFIED } from "./client-behind.ts";

const CLIENT = "spiffe://example.org/ns/a/pod/client";
const NODE_2 = "spiffe://example.org/ns/nsm/pod/forwarder-2";
const token = (sub: string) => paperToken(sub, "nsmgr", 2_000_000_000_000);
const segment = (name: string, sub: string) => ({ name, id: name, token: token(sub) });
const manager = segment("nsmgr", "spiffe://example.org/ns/nsm/pod/nsmgr");
const client = segment("client", CLIENT);

const rows = [
  { says: "is the one before the manager", index: 1, segments: [client, manager], is: { client: CLIENT } },
  {
    says: "is the same when we are on the path already",
    index: 2,
    segments: [client, manager, segment("fwd", "x")],
    is: { client: CLIENT },
  },
  {
    says: "is another node's forwarder, whom the manager has verified, and by its word who begins the path",
    index: 3,
    segments: [client, segment("nsmgr-2", "x"), segment("forwarder-2", NODE_2), manager],
    is: { client: NODE_2, origin: CLIENT },
  },
  { says: "is none where the manager begins the path", index: 0, segments: [manager], is: {} },
  { says: "is none without a path", index: 0, segments: [], is: {} },
  { says: "is none where the index leads nowhere", index: 7, segments: [client, manager], is: {} },
  {
    says: "is unidentified without a token",
    index: 1,
    segments: [{ ...client, token: "" }, manager],
    is: { client: UNIDENTIFIED },
  },
  {
    says: "is unidentified with a token of no form",
    index: 1,
    segments: [{ ...client, token: "a.b.c" }, manager],
    is: { client: UNIDENTIFIED },
  },
  {
    says: "is unidentified where the subject is no SPIFFE ID",
    index: 1,
    segments: [segment("client", "x".repeat(4_000)), manager],
    is: { client: UNIDENTIFIED },
  },
  {
    says: "is who is verified where who begins the path has no token",
    index: 2,
    segments: [{ ...client, token: "" }, segment("forwarder-2", NODE_2), manager],
    is: { client: NODE_2, origin: UNIDENTIFIED },
  },
] as const;

for (const { says, index, segments, is } of rows) {
  test(`clientBehind() ${says}`, () => {
    const path = { index, pathSegments: segments.map((one) => ({ ...one })) };
    assert.deepEqual(clientBehind(create(ConnectionSchema, { path }), "fwd"), is);
  });
}

test("clientShare() is two thirds of what others leave, and never nothing where they leave something", () => {
  const shares = [0, 30, 88, 89, 90, 100].map((ofOthers) => clientShare(90, ofOthers));
  assert.deepEqual(shares, [60, 40, 1, 1, 0, 0]);
  assert.deepEqual(
    [0, 80, 95, 100, 101].map((ofOthers) => clientShare(100, ofOthers, 16)),
    [66, 16, 5, 0, 0],
  );
});

test("ClientCalls.begin() leaves room for clients that come later, and takes calls again when some have ended", () => {
  const calls = new ClientCalls({ calls: 90, heldBytes: 1_000 });
  const begun = (name: string) => {
    let count = 0;
    while (calls.begin(name, 1)) count += 1;
    return count;
  };
  assert.deepEqual([begun("greedy"), begun("second"), begun("third")], [60, 20, 6]);
  assert.equal(calls.begin("honest", 1), true);
  for (let at = 0; at < 60; at += 1) calls.end("greedy", 1);
  assert.equal(begun("second"), 55 - 20);
});

test("ClientCalls.begin() leaves room for what others' requests take, and takes one however large while there is room", () => {
  const calls = new ClientCalls({ calls: 90, heldBytes: 900 });
  assert.deepEqual(
    [calls.begin("greedy", 500), calls.begin("greedy", 101), calls.begin("greedy", 100)],
    [true, false, true],
  );
  assert.deepEqual([calls.begin("second", 301), calls.begin("second", 300)], [false, true]);
  assert.equal(calls.begin("third", 1), false);
  calls.end("greedy", 100);
  assert.equal(calls.begin("third", 100), true);
  calls.end("second", 300);
  calls.end("third", 100);
  calls.end("greedy", 500);
  let count = 0;
  while (calls.begin("greedy", 0)) count += 1;
  assert.equal(count, 60, "what was refused for its size counts for no call");
});

test("ClientCalls.end() of a client's last call leaves nothing of it", () => {
  const calls = new ClientCalls({ calls: 1, heldBytes: 1 });
  for (const time of ["the first time", "again"]) {
    assert.equal(calls.begin("client", 1), true, time);
    calls.end("client", 1);
  }
});
