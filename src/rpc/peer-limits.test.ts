import assert from "node:assert/strict";
import { PassThrough } from "node:stream";
import { test } from "node:test";
import { Handshakes } from "./http2/handshakes.ts";
import { ByteBudget, type OwnedConnection, PeerLimits } from "./peer-limits.ts";
import { defaultLimits } from "./rpc-limits.ts";

const limits = {
  ...defaultLimits,
  maxConnections: 5,
  maxConnectionsPerOwner: 3,
  maxCallsPerOwner: 2,
  maxMessageBytes: 10,
  maxArrivalBytesPerOwner: 60,
  maxArrivalBytes: 100,
};

interface Made extends OwnedConnection {
  isIdle: boolean;
  ended: boolean;
}

function connectionsOf(owners: PeerLimits) {
  return (owner: string, isIdle = true): { made: Made; isTaken: boolean } => {
    const made: Made = {
      owner,
      isIdle,
      ended: false,
      end() {
        made.ended = true;
        owners.remove(made);
      },
    };
    return { made, isTaken: owners.add(made) };
  };
}

test("PeerLimits.add() takes as many connections of one owner as it may have, and ends its oldest idle one for one more", () => {
  const owners = new PeerLimits(limits);
  const open = connectionsOf(owners);
  const [busy, idle, other] = [open("a", false), open("a"), open("a")];
  assert.deepEqual(
    [busy, idle, other].map(({ isTaken }) => isTaken),
    [true, true, true],
  );
  assert.equal(open("a").isTaken, true);
  assert.deepEqual(
    [busy, idle, other].map(({ made }) => made.ended),
    [false, true, false],
  );
  assert.equal(owners.connectionCount, 3);
});

test("PeerLimits.add() refuses where all of the owner's connections carry calls", () => {
  const open = connectionsOf(new PeerLimits(limits));
  for (let at = 0; at < 3; at += 1) open("a", false);
  assert.equal(open("a").isTaken, false);
  assert.equal(open("b").isTaken, true);
});

test("PeerLimits.add() makes room in a full server at the cost of the owner that has most", () => {
  const owners = new PeerLimits(limits);
  const open = connectionsOf(owners);
  const small = open("b");
  const greedy = [open("a"), open("a"), open("a")];
  open("c");
  assert.equal(open("d").isTaken, true);
  assert.deepEqual([small.made.ended, greedy.map(({ made }) => made.ended)], [false, [true, false, false]]);
  assert.equal(owners.connectionCount, 5);
});

test("PeerLimits.add() counts connections without an owner for the whole server only", () => {
  const open = connectionsOf(new PeerLimits(limits));
  for (let at = 0; at < 5; at += 1) assert.equal(open("", false).isTaken, true);
  assert.equal(open("", false).isTaken, false);
});

test("PeerLimits.add() makes room once with a connection whose end comes later", () => {
  const owners = new PeerLimits(limits);
  const slow = () => {
    const made = {
      owner: "a",
      isIdle: true,
      ends: 0,
      end() {
        made.ends += 1;
      },
    };
    return made;
  };
  const made = [slow(), slow(), slow(), slow(), slow()];
  for (const one of made) assert.equal(owners.add(one), true);
  assert.deepEqual(
    made.map(({ ends }) => ends),
    [1, 1, 0, 0, 0],
  );
  assert.equal(owners.connectionCount, 3);
});

test("PeerLimits.remove() counts a connection once", () => {
  const owners = new PeerLimits(limits);
  const { made } = connectionsOf(owners)("a");
  owners.remove(made);
  owners.remove(made);
  assert.equal(owners.connectionCount, 0);
});

test("PeerLimits.beginCall() takes as many calls of an owner as it may have, on whatever connection", () => {
  const owners = new PeerLimits(limits);
  assert.deepEqual(
    [1, 2, 3].map(() => owners.beginCall("a")),
    [true, true, false],
  );
  assert.equal(owners.beginCall("b"), true);
  owners.endCall("a");
  assert.equal(owners.beginCall("a"), true);
});

test("PeerLimits.beginCall() continues counting calls that outlive the owner's connections", () => {
  const owners = new PeerLimits(limits);
  const open = connectionsOf(owners);
  const { made } = open("a");
  assert.deepEqual([owners.beginCall("a"), owners.beginCall("a")], [true, true]);
  owners.remove(made);
  open("a");
  assert.equal(owners.beginCall("a"), false);
  owners.endCall("a");
  assert.equal(owners.beginCall("a"), true);
});

test("PeerLimits.budgetOf() bounds the bytes of a connection, of its owner and of the server", () => {
  const owners = new PeerLimits(limits);
  const open = connectionsOf(owners);
  open("a");
  open("b");
  const [first, second, third] = [owners.budgetOf("a"), owners.budgetOf("a"), owners.budgetOf("b")];
  assert.deepEqual([first.take(41), first.take(40), first.take(1)], [false, true, false]);
  assert.deepEqual([second.take(21), second.take(20)], [false, true]);
  assert.deepEqual([third.take(40), owners.budgetOf("c").take(1)], [true, false]);
  first.give(40);
  assert.equal(second.take(20), true);
});

test("ByteBudget.take() takes nothing anywhere when a parent has too little", () => {
  const parent = new ByteBudget(10);
  const child = new ByteBudget(100, parent);
  assert.deepEqual([child.take(11), child.take(10), parent.take(1)], [false, true, false]);
});

test("Handshakes.add() lets the oldest go that has sent nothing, at once, and then the oldest", () => {
  const handshakes = new Handshakes(2);
  const [a, b, c, d, e] = [1, 2, 3, 4, 5].map(() => new PassThrough().on("error", () => {})) as [
    PassThrough,
    ...PassThrough[],
  ];
  const [second, third, fourth, fifth] = [b, c, d, e] as [PassThrough, PassThrough, PassThrough, PassThrough];
  handshakes.add(a);
  handshakes.spoke(a);
  handshakes.add(second);
  handshakes.add(third);
  assert.deepEqual([a.destroyed, second.destroyed, handshakes.size], [false, true, 2]);
  handshakes.spoke(third);
  handshakes.add(fourth);
  assert.deepEqual([a.destroyed, third.destroyed, handshakes.size], [true, false, 2]);
  handshakes.delete(fourth);
  handshakes.delete(fourth);
  handshakes.add(fifth);
  assert.deepEqual([third.destroyed, fourth.destroyed, handshakes.size], [false, false, 2]);
  handshakes.endAll();
  assert.deepEqual([third.destroyed, fifth.destroyed, handshakes.size], [true, true, 0]);
});
