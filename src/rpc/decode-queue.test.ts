import assert from "node:assert/strict";
import { getEventListeners } from "node:events";
import { beforeEach, test } from "node:test";
import { HandClock } from "../nsm/testing/fakes.ts";
import { type Admitted, DecodeQueue } from "./decode-queue.ts";
import { HeldRequests } from "./held-requests.ts";
import { Rate } from "./rate.ts";

const MANAGER = "manager";
const LARGE = 8_000;

let clock: HandClock;
let queue: DecodeQueue;
/** Whose requests were let in, in their order. */
let admitted: string[];
/** What they hold, in the same order. */
let held: Admitted[];

beforeEach(() => setUp({ each: 1_000_000, others: 1_000_000 }));

const MUCH = { each: 1e9, others: 1e9, manager: 1e9 };

function setUp(limits: { readonly each: number; readonly others: number }, heldLimits = MUCH): void {
  clock = new HandClock();
  const isManager = (owner: string) => owner === MANAGER;
  queue = new DecodeQueue({
    rate: new Rate(limits, isManager, clock),
    held: new HeldRequests(heldLimits, isManager),
    clock,
  });
  admitted = [];
  held = [];
}

function send(owner: string, elements: number, signal = new AbortController().signal): Promise<unknown> {
  return queue.admit(owner, { elements, bytes: 0 }, signal).then(
    (one) => {
      held.push(one);
      return admitted.push(owner);
    },
    (error: unknown) => error,
  );
}

test("DecodeQueue.admit() lets in at once what one turn of the event loop has room for", async () => {
  for (const owner of ["a", "b", "a"]) await send(owner, 300);
  assert.deepEqual([admitted, queue.size, clock.timerCount], [["a", "b", "a"], 0, 0]);
});

test("DecodeQueue.admit() lets one owner in after the other, however many requests one has sent", async () => {
  for (let at = 0; at < 100; at += 1) void send("flood", LARGE);
  void send("honest", 300);
  void send("honest too", 300);
  await clock.pass(0);
  assert.ok(admitted.slice(0, 6).includes("honest") && admitted.slice(0, 6).includes("honest too"), admitted.join());
  assert.equal(admitted.length, 102);
});

test("DecodeQueue.admit() decodes not much more than a turn has room for before other things continue", async () => {
  const turns: number[] = [];
  const after = clock.after.bind(clock);
  clock.after = (delayMs, callback) =>
    after(delayMs, () => {
      const before = queue.size;
      callback();
      turns.push(before - queue.size);
    });
  for (let at = 0; at < 20; at += 1) void send(`p${at % 4}`, LARGE);
  await clock.pass(0);
  assert.equal(admitted.length, 20);
  assert.ok(Math.max(...turns) <= 2, turns.join());
});

test("DecodeQueue.admit() lets wait who has used up its second, and all but the manager when all together have", async () => {
  setUp({ each: 1_000, others: 1_500 });
  for (const owner of ["a", "a", "b", "c"]) void send(owner, 1_000);
  await clock.pass(0);
  assert.deepEqual(admitted, ["a", "b"]);
  void send(MANAGER, 1_000);
  await clock.pass(10);
  assert.deepEqual(admitted, ["a", "b", MANAGER]);
  await clock.pass(1_500);
  assert.deepEqual([admitted.length, queue.size], [5, 0]);
});

test("DecodeQueue.admit() keeps no large request waiting behind small ones that keep coming", async () => {
  setUp({ each: 1_000, others: 1_000 });
  void send("large", 900);
  void send("large", 900);
  for (let at = 0; at < 300; at += 1) {
    void send(`p${at % 3}`, 10);
    await clock.pass(10);
  }
  assert.equal(admitted.filter((owner) => owner === "large").length, 2);
});

test("DecodeQueue.admit() forgets a caller that goes, with its reason", async () => {
  const caller = new AbortController();
  const reason = new Error("gone");
  setUp({ each: 100, others: 100 });
  void send("a", 100);
  const waiting = send("a", 100, caller.signal);
  assert.equal(queue.size, 1);
  caller.abort(reason);
  assert.deepEqual([await waiting, queue.size], [reason, 0]);
  assert.equal(await send("b", 100, caller.signal), reason);
  await clock.pass(10);
  assert.equal(clock.timerCount, 0);
});

test("DecodeQueue.admit() begins each turn with the owner that has waited longest", async () => {
  for (const owner of ["a", "b", "c"]) for (let at = 0; at < 4; at += 1) void send(owner, LARGE);
  await clock.pass(0);
  assert.deepEqual(admitted.slice(2, 8).toSorted(), ["a", "a", "b", "b", "c", "c"], "after two that went at once");
});

test("DecodeQueue.admit() lets no request overtake one of its owner, and leaves nothing on a signal", async () => {
  setUp({ each: 100, others: 1_000_000 });
  await send("a", 100);
  const { signal } = new AbortController();
  const order: string[] = [];
  const waiting = queue.admit("a", { elements: 1, bytes: 0 }, signal).then(() => order.push("second"));
  await clock.pass(9); // something of its rate is there again, before those that wait are tried
  const late = queue.admit("a", { elements: 1, bytes: 0 }, signal).then(() => order.push("third"));
  await clock.pass(1_000);
  await Promise.all([waiting, late]);
  assert.deepEqual([order, getEventListeners(signal, "abort").length], [["second", "third"], 0]);
});

const MANY = { each: 1_000_000, others: 1_000_000 };
/** Room for six large requests of all, three of them of one owner; and a quarter as much for small ones. */
const ROOM = { each: 5_500_000, others: 11_000_000, manager: 5_500_000 };

test("DecodeQueue.admit() lets a large request wait until one of its owner has ended, and the small ones behind it not", async () => {
  setUp(MANY, ROOM);
  for (let at = 0; at < 4; at += 1) void send("a", LARGE);
  await clock.pass(0);
  assert.deepEqual([admitted.length, queue.size, clock.timerCount], [3, 1, 0]);
  for (const owner of ["a", "b", MANAGER]) {
    void send(owner, 300);
    await clock.pass(0);
  }
  assert.deepEqual([admitted.slice(3), queue.size], [["a", "b", MANAGER], 1]);
  held[0]?.release();
  held[0]?.release();
  void send("a", LARGE);
  await clock.pass(0);
  assert.deepEqual([admitted.slice(6), queue.size], [["a"], 1], "one has ended, once");
});

test("DecodeQueue.admit() lets large requests of others in as long as all together hold no more than they may", async () => {
  setUp(MANY, ROOM);
  for (const owner of ["a", "b", "c", "d"]) for (let at = 0; at < 3; at += 1) void send(owner, LARGE);
  for (let at = 0; at < 4; at += 1) void send(MANAGER, LARGE);
  await clock.pass(0);
  const count = (owner: string) => admitted.filter((one) => one === owner).length;
  assert.equal(count(MANAGER), 3);
  assert.equal(admitted.length - count(MANAGER), 6);
  assert.ok(
    ["a", "b", "c", "d"].every((owner) => count(owner) >= 1),
    admitted.join(),
  );
});

test("DecodeQueue.admit() leaves what it can not let in at once no part of what may be held", async () => {
  setUp({ each: 1_000, others: 1_000 }, ROOM);
  for (let at = 0; at < 3; at += 1) void send("a", LARGE);
  assert.equal(queue.size, 2);
  await clock.pass(30_000);
  assert.deepEqual([admitted.length, queue.size], [3, 0]);
});

test("DecodeQueue.admit() lets in what is larger than any share, alone", async () => {
  setUp(MANY, { each: 400_000, others: 1_600_000, manager: 400_000 });
  for (const owner of ["a", "a", MANAGER]) void send(owner, LARGE);
  await clock.pass(0);
  assert.deepEqual([admitted, queue.size], [["a", MANAGER], 1]);
  held[0]?.release();
  await clock.pass(0);
  assert.equal(queue.size, 0);
});
