import assert from "node:assert/strict";
import { PassThrough } from "node:stream";
import { test } from "node:test";
import { HandClock } from "../nsm/testing/fakes.ts";
import { Handshakes } from "./http2/handshakes.ts";
import type { OwnedConnection } from "./owned-connections.ts";
import { PeerLimits } from "./peer-limits.ts";
import { defaultLimits } from "./rpc-limits.ts";

const limits = {
  ...defaultLimits,
  maxMessageBytes: 10,
  connections: { each: 3, others: 7, manager: 3 },
  dials: { each: 2, others: 5, manager: 2 },
  endpointSockets: { each: 2, others: 5, manager: 2 },
  calls: { each: 2, others: 5, manager: 3 },
  arrivalBytes: { each: 60, others: 160, manager: 60 },
  answerBytes: { each: 20, others: 80, manager: 30 },
  heldBytes: { each: 1_000, others: 4_000, manager: 1_000 },
  decodedElements: { each: 60, others: 100 },
  descriptors: { each: 3, others: 7, manager: 3 },
  unknownDescriptors: 2,
};

const MANAGER = "manager";

function peerLimits() {
  const clock = new HandClock();
  const refused: string[] = [];
  const owners = new PeerLimits({
    limits,
    clock,
    isManager: (owner) => owner === MANAGER,
    onRefused: (kind, owner) => void refused.push(`${kind} ${owner}`),
  });
  return { owners, clock, refused };
}

interface Made extends OwnedConnection {
  isIdle: boolean;
  ended: boolean;
}

function connectionsOf(owners: PeerLimits, clock = new HandClock()) {
  return (owner: string, isIdle = true): { made: Made; isTaken: boolean } => {
    const made: Made = {
      owner,
      isIdle,
      idleSinceMs: clock.monotonicMs(),
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
  const { owners } = peerLimits();
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

test("PeerLimits.add() ends an owner's own idle connection for one more than it may have, and none of one that has as many", () => {
  const wide = { ...limits, connections: { each: 2, others: 20, manager: 2 } };
  const open = connectionsOf(new PeerLimits({ limits: wide, clock: new HandClock() }));
  const [others, own] = [
    [open("b"), open("b")],
    [open("a"), open("a")],
  ];
  assert.equal(open("a").isTaken, true);
  assert.deepEqual(
    [...others, ...own].map(({ made }) => made.ended),
    [false, false, true, false],
  );
});

test("PeerLimits.add() ends no connection of a server that is less than half full, however long it rests", async () => {
  const { owners, clock } = peerLimits();
  const open = connectionsOf(owners, clock);
  const resting = [open("a"), open("b")];
  await clock.pass(24 * 3_600_000);
  open("c");
  assert.deepEqual(
    resting.map(({ made }) => made.ended),
    [false, false],
  );
});

test("PeerLimits.arrivalOf() gives a connection its own part back, again and again", () => {
  const arrival = peerLimits().owners.arrivalOf("a");
  for (let times = 0; times < 3; times += 1) {
    assert.deepEqual([arrival.take(40), arrival.take(1)], [true, false], "four messages");
    arrival.give(40);
  }
});

test("PeerLimits.add() refuses where all of the owner's connections carry calls", () => {
  const open = connectionsOf(peerLimits().owners);
  for (let at = 0; at < 3; at += 1) open("a", false);
  assert.equal(open("a").isTaken, false);
  assert.equal(open("b").isTaken, true);
});

test("PeerLimits.add() makes room in a full server at the cost of the owner that has most", () => {
  const { owners } = peerLimits();
  const open = connectionsOf(owners);
  const small = open("b");
  const greedy = [open("a"), open("a"), open("a")];
  for (const owner of ["c", "d", "e"]) open(owner);
  assert.equal(owners.connectionCount, 7);
  assert.equal(open("f").isTaken, true);
  assert.deepEqual([small.made.ended, greedy.map(({ made }) => made.ended)], [false, [true, false, false]]);
  assert.equal(open("g").isTaken, true);
  assert.deepEqual([small.made.ended, greedy.map(({ made }) => made.ended)], [false, [true, true, false]]);
  assert.equal(owners.connectionCount, 7);
});

test("PeerLimits.add() lets no two owners have all, though all their connections carry calls", () => {
  const { owners, refused } = peerLimits();
  const open = connectionsOf(owners);
  const openAll = (owner: string) => [1, 2, 3, 4].filter(() => open(owner, false).isTaken).length;
  assert.deepEqual([openAll("a"), openAll("b"), openAll("c"), openAll("d")], [3, 2, 1, 1]);
  assert.deepEqual([openAll("e"), new Set(refused).size], [0, 5]);
});

test("PeerLimits.add() lets an owner have one more for idle ones of the owner that has most", () => {
  const { owners } = peerLimits();
  const open = connectionsOf(owners);
  const greedy = [open("a"), open("a"), open("a")];
  for (const owner of ["b", "c"]) open(owner, false);
  assert.equal(open("b", false).isTaken, true);
  assert.deepEqual(
    greedy.map(({ made }) => made.ended),
    [true, false, false],
  );
});

test("PeerLimits.add() takes those that have no identity as one owner", () => {
  const open = connectionsOf(peerLimits().owners);
  for (let at = 0; at < 3; at += 1) assert.equal(open("", false).isTaken, true);
  assert.equal(open("", false).isTaken, false);
});

test("PeerLimits keeps the manager's part of everything, whatever all others have", () => {
  const { owners, refused } = peerLimits();
  const open = connectionsOf(owners);
  for (let at = 0; at < 7; at += 1) {
    open(`p${at}`, false);
    if (at < 5) owners.beginCall(`p${at}`);
    if (at < 4) owners.arrivalOf(`p${at}`).take(40);
    owners.descriptorsOf(`p${at}`).take(1);
  }
  const requests = (owner: string) => [
    open(owner, false).isTaken,
    owners.beginCall(owner),
    owners.arrivalOf(owner).take(40),
    owners.descriptorsOf(owner).take(3),
  ];
  assert.deepEqual(requests("new"), [false, false, false, false]);
  assert.deepEqual(requests(MANAGER), [true, true, true, true]);
  const kinds = ["connections", "calls", "arrival-bytes", "descriptors"];
  assert.deepEqual(
    refused,
    kinds.map((kind) => `${kind} new`),
  );
});

test("PeerLimits counts apart what a peer has that turns out to be the manager, and with the others what a former one has", () => {
  let manager: string | undefined;
  const owners = new PeerLimits({ limits, clock: new HandClock(), isManager: (owner) => owner === manager });
  for (const owner of ["a", "a", "b", "c", "d"]) assert.equal(owners.beginCall(owner), true);
  assert.equal(owners.beginCall("e"), false);
  manager = "a";
  assert.equal(owners.beginCall("a"), true);
  assert.equal(owners.beginCall("a"), false, "it has as many as the manager may");
  assert.equal(owners.beginCall("e"), true);
  assert.equal(owners.beginCall("f"), true);
  assert.equal(owners.beginCall("g"), false);
  manager = "f";
  assert.equal(owners.beginCall("f"), true);
  assert.deepEqual([owners.beginCall("a"), owners.beginCall("g")], [false, false], "the former one has three");
  for (let at = 0; at < 3; at += 1) owners.endCall("a");
  assert.deepEqual([owners.beginCall("g"), owners.beginCall("a"), owners.beginCall("h")], [true, false, false]);
});

test("PeerLimits.add() ends long idle connections of a server that is half full, and none of the manager's", async () => {
  const { owners, clock } = peerLimits();
  const open = connectionsOf(owners, clock);
  const made = [open(MANAGER), open("a"), open("b", false), open("c")];
  await clock.pass(299_999);
  open("d");
  assert.ok(made.every(({ made: { ended } }) => !ended));
  await clock.pass(1);
  open("e");
  assert.deepEqual(
    made.map(({ made: { ended } }) => ended),
    [false, true, false, true],
  );
});

test("PeerLimits.unknownDescriptors are of all together whose name is not known yet", () => {
  const { owners } = peerLimits();
  assert.deepEqual([owners.unknownDescriptors.take(2), owners.unknownDescriptors.take(1)], [true, false]);
  assert.equal(owners.descriptorsOf("").take(3), true);
});

test("PeerLimits.add() makes room once with a connection whose end comes later", () => {
  const { owners } = peerLimits();
  const slow = () => {
    const made = {
      owner: "a",
      isIdle: true,
      idleSinceMs: Number.POSITIVE_INFINITY,
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
  const { owners } = peerLimits();
  const { made } = connectionsOf(owners)("a");
  owners.remove(made);
  owners.remove(made);
  assert.equal(owners.connectionCount, 0);
});

test("PeerLimits.answersOf() bounds what waits for an owner on all its connections, and leaves the manager its part", () => {
  const { owners, refused } = peerLimits();
  assert.deepEqual(
    [owners.answersOf("a").take(15), owners.answersOf("a").take(6), owners.answersOf("a").take(5)],
    [true, false, true],
  );
  for (const owner of ["b", "c", "d"]) assert.equal(owners.answersOf(owner).take(20), true, owner);
  assert.deepEqual([owners.answersOf("e").take(1), owners.answersOf(MANAGER).take(30)], [false, true]);
  owners.answersOf("b").give(20);
  assert.equal(owners.answersOf("e").take(10), true);
  assert.deepEqual(refused, ["answer-bytes a", "answer-bytes e"]);
});

test("PeerLimits.addDial() counts apart from the connections that an owner has made", () => {
  const { owners, refused } = peerLimits();
  const open = connectionsOf(owners);
  for (let at = 0; at < limits.connections.each; at += 1) assert.ok(open("a", false).isTaken);
  const dials = Array.from({ length: 3 }, () => ({ owner: "a", isIdle: false, idleSinceMs: 0, end() {} }));
  assert.deepEqual(
    dials.map((dial) => owners.addDial(dial)),
    [true, true, false],
  );
  assert.deepEqual(refused, ["dials a"]);
  for (const dial of dials) owners.removeDial(dial);
  assert.ok(dials.slice(1).every((dial) => owners.addDial(dial)));
});

test("PeerLimits.addSocket() counts apart from dials, ends the owner's idle ones for one more, and refuses where all are in use", () => {
  const { owners, refused } = peerLimits();
  const ended: number[] = [];
  const sockets = Array.from({ length: 4 }, (_, at) => ({
    ...{ owner: "a", isIdle: at === 1, idleSinceMs: 0 },
    end: () => void ended.push(at),
  }));
  for (let at = 0; at < 2; at += 1) owners.addDial({ owner: "a", isIdle: false, idleSinceMs: 0, end() {} });
  assert.deepEqual(
    sockets.map((socket) => owners.addSocket(socket)),
    [true, true, true, false],
  );
  assert.deepEqual([ended, refused], [[1], ["endpoint-sockets a"]]);
  for (const socket of sockets) owners.removeSocket(socket);
  assert.ok(sockets.slice(2).every((socket) => owners.addSocket(socket)));
});

test("PeerLimits.beginCall() takes as many calls of an owner as it may have, on whatever connection", () => {
  const { owners } = peerLimits();
  assert.deepEqual(
    [1, 2, 3].map(() => owners.beginCall("a")),
    [true, true, false],
  );
  assert.equal(owners.beginCall("b"), true);
  owners.endCall("a");
  assert.equal(owners.beginCall("a"), true);
});

test("PeerLimits.beginCall() continues counting calls that outlive the owner's connections", () => {
  const { owners } = peerLimits();
  const open = connectionsOf(owners);
  const { made } = open("a");
  assert.deepEqual([owners.beginCall("a"), owners.beginCall("a")], [true, true]);
  owners.remove(made);
  open("a");
  assert.equal(owners.beginCall("a"), false);
  owners.endCall("a");
  assert.equal(owners.beginCall("a"), true);
});

test("PeerLimits.arrivalOf() bounds the bytes of a connection, of its owner and of the server", () => {
  const { owners } = peerLimits();
  const open = connectionsOf(owners);
  open("a");
  open("b");
  const [first, second, third] = [owners.arrivalOf("a"), owners.arrivalOf("a"), owners.arrivalOf("b")];
  assert.deepEqual([first.take(41), first.take(40), first.take(1)], [false, true, false]);
  assert.deepEqual([second.take(21), second.take(20)], [false, true]);
  const [fourth, fifth] = [owners.arrivalOf("c"), owners.arrivalOf("c")];
  assert.deepEqual([third.take(40), fourth.take(40), fifth.take(1)], [true, true, false]);
  assert.deepEqual([owners.arrivalOf("d").take(21), owners.arrivalOf("d").take(20)], [false, true]);
  first.give(40);
  fourth.give(40);
  assert.equal(second.take(20), true);
});

const from = (source: string, stream: PassThrough) => ({ source, stream });

test("Handshakes.add() lets the oldest of a source go that has sent nothing, at once, and then the oldest", () => {
  const handshakes = new Handshakes(2);
  const [a, b, c, d, e] = [1, 2, 3, 4, 5].map(() => new PassThrough().on("error", () => {})) as [
    PassThrough,
    ...PassThrough[],
  ];
  const [second, third, fourth, fifth] = [b, c, d, e] as [PassThrough, PassThrough, PassThrough, PassThrough];
  handshakes.add(from("pid 1", a));
  handshakes.spoke(a);
  handshakes.add(from("pid 1", second));
  handshakes.add(from("pid 1", third));
  assert.deepEqual([a.destroyed, second.destroyed, handshakes.size], [false, true, 2]);
  handshakes.spoke(third);
  handshakes.add(from("pid 1", fourth));
  assert.deepEqual([a.destroyed, third.destroyed, handshakes.size], [true, false, 2]);
  handshakes.delete(fourth);
  handshakes.delete(fourth);
  handshakes.add(from("pid 1", fifth));
  assert.deepEqual([third.destroyed, fourth.destroyed, handshakes.size], [false, false, 2]);
  handshakes.endAll();
  assert.deepEqual([third.destroyed, fifth.destroyed, handshakes.size], [true, true, 0]);
});

test("Handshakes.spoke() takes no one in again who has gone", () => {
  const handshakes = new Handshakes(2);
  const [gone, stays] = [new PassThrough(), new PassThrough().on("error", () => {})];
  for (const stream of [gone, stays]) handshakes.add(from("pid 1", stream));
  handshakes.delete(gone);
  for (const stream of [gone, stays]) handshakes.spoke(stream);
  assert.equal(handshakes.size, 1);
  handshakes.endAll();
  assert.equal(gone.destroyed, false);
});

test("Handshakes.add() lets one of the source go that has most, whether it speaks or not, the newcomer's counted", () => {
  const handshakes = new Handshakes(4);
  const opened = (source: string, isSpeaking: boolean) => {
    const stream = new PassThrough().on("error", () => {});
    handshakes.add(from(source, stream));
    if (isSpeaking) handshakes.spoke(stream);
    return stream;
  };
  const [silent, speaking] = [opened("honest", false), opened("honest too", true)];
  const flood = Array.from({ length: 20 }, () => opened("flood", true));
  assert.deepEqual([silent.destroyed, speaking.destroyed], [false, false]);
  assert.deepEqual(
    flood.filter(({ destroyed }) => !destroyed),
    flood.slice(-2),
  );
  const late = opened("late", false);
  assert.deepEqual(
    [silent.destroyed, speaking.destroyed, late.destroyed, flood.at(-2)?.destroyed],
    [false, false, false, true],
  );
  opened("late", false);
  assert.deepEqual([late.destroyed, flood.at(-1)?.destroyed, handshakes.size], [true, false, 4]);
  handshakes.endAll();
});

test("PeerLimits.addSocket() counts what owners share for each of them and once for all, the manager's apart", () => {
  const { owners } = peerLimits();
  const ofShared = (owner: string, shared: object = {}) => {
    const made = { owner, shared, isIdle: false, idleSinceMs: 0, end() {} };
    return { made, isTaken: owners.addSocket(made) };
  };
  const [one, two, three] = [{}, {}, {}];
  const ofManager = [one, two].map((shared) => ofShared(MANAGER, shared));
  const ofPeer = [one, two, three].map((shared) => ofShared("a", shared));
  assert.deepEqual(
    [...ofManager, ...ofPeer].map(({ isTaken }) => isTaken),
    [true, true, true, true, false],
  );
  // From now on they count for all others: three are left, and each has a first one of them.
  for (const { made } of ofManager) owners.removeSocket(made);
  assert.deepEqual(
    ["b", "c", "d", "e"].map((owner) => ofShared(owner).isTaken),
    [true, true, true, false],
  );
  assert.ok(ofShared("e", one).isTaken, "it is there already");
  for (const { made } of ofPeer) owners.removeSocket(made);
  assert.deepEqual(
    ["f", "g"].map((owner) => ofShared(owner).isTaken),
    [true, false],
  );
});
