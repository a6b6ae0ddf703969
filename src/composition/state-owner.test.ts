import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { until } from "../../test/scenes/until.ts";
import { systemClock, systemRandom, UndoStack } from "../async/index.ts";
import { type ExclusiveLock, linuxDisk, watchFolder } from "../kernel/index.ts";
import { HandClock, settled } from "../nsm/testing/fakes.ts";
import { Health } from "../telemetry/index.ts";
import { recordingLog } from "../telemetry/recording-log.ts";
import { describeHolder, ownStateFolder, type StateOwnerOptions } from "./state-owner.ts";

const since = "2026-11-29T14:00:00.000Z";

test("describeHolder() says who has the folder, and makes nothing up", () => {
  const text = JSON.stringify({ name: "fwd-1", pid: 7, version: "0.1.0", since });
  assert.equal(describeHolder(text), `fwd-1, process 7 as its container counts, version 0.1.0, since ${since}`);
  const odd = [
    undefined,
    "",
    "{",
    "null",
    "7",
    '{"name":7}',
    JSON.stringify({ name: "x".repeat(2_000), pid: 7, version: "0", since }),
  ];
  for (const unknown of odd) assert.equal(describeHolder(unknown), "it has not said who it is", unknown ?? "none");
});

/** The lock of one folder. */
class PaperLocks {
  readonly given: { isCurrent: boolean; released: number }[] = [];
  /** Why it cannot be locked. */
  failure: Error | undefined;
  /** Another process has it until this resolves. */
  held: Promise<void> | undefined;
  isDeaf = false;

  folder: StateOwnerOptions["host"]["locks"]["folder"] = async (_path, { signal, onHeld }) => {
    if (this.failure) throw this.failure;
    if (this.held) {
      for (let observe = 0; observe < 2; observe += 1) onHeld(); // each time that it is tried
      const aborted = Promise.withResolvers<never>();
      signal.addEventListener("abort", () => this.isDeaf || aborted.reject(signal.reason), { once: true });
      await Promise.race([this.held, aborted.promise]);
    }
    const lock = { isCurrent: true, released: 0 };
    this.given.push(lock);
    const release = () => void lock.released++;
    return { isCurrent: () => lock.isCurrent, release } satisfies ExclusiveLock;
  };
}

function owner(t: TestContext) {
  const statePath = mkdtempSync(join(tmpdir(), "state-"));
  const clock = new HandClock();
  const [log, health, locks, undo] = [recordingLog(), new Health(clock), new PaperLocks(), new UndoStack()];
  const stopped = new AbortController();
  const disk = { ready: Promise.resolve(), isFull: false };
  const changing = {
    ...linuxDisk,
    async open(path: string, how: "read" | "append" | "create") {
      await disk.ready;
      if (disk.isFull && how !== "read") throw new Error("ENOSPC: the disk is full");
      return await linuxDisk.open(path, how);
    },
  };
  const host = { locks, disk: changing, random: systemRandom, watchFolder } as unknown as StateOwnerOptions["host"];
  const options = { statePath, name: "fwd-1", host, health, clock, log, signal: stopped.signal };
  t.after(() => rmSync(statePath, { recursive: true }));
  return {
    ...{ statePath, clock, log, health, locks, disk, stopped },
    own: () => ownStateFolder(options, undo),
    giveUp: () => undo.unwind((_part, error) => assert.fail(String(error))),
    released: () => locks.given.map(({ released }) => released),
  };
}

test("ownStateFolder() signs what it has, and gives the lock up once, with its timer", async (t) => {
  const { statePath, clock, log, locks, own, giveUp, released } = owner(t);
  await own();
  assert.equal(JSON.parse(readFileSync(join(statePath, "holder"), "utf8")).name, "fwd-1");
  await clock.pass(60_000);
  assert.deepEqual([locks.given.length, released()], [1, [0]]);
  await giveUp();
  assert.deepEqual([released(), clock.timerCount, log.of("state-folder-claimed")], [[1], 0, []]);
});

test("ownStateFolder() says who has the folder when that is written, and no more once it is ours", async (t) => {
  const { statePath, log, health, locks, own, giveUp } = owner(t);
  const released = Promise.withResolvers<void>();
  locks.held = released.promise;
  const owning = own();
  const holders = () => log.of("state-folder-held").map(({ holder }) => String(holder));
  await until("the holder that is waited for is logged", () => holders().length >= 1);
  assert.equal(health.ready.value, false);
  writeFileSync(join(statePath, "journal"), "news of no interest");
  const holder = { name: "fwd-0", pid: 7, version: "0.1.0", since };
  writeFileSync(join(statePath, "holder.new"), "");
  writeFileSync(join(statePath, "holder"), JSON.stringify(holder));
  await until("the holder that has signed is logged", () => holders().length >= 2);
  assert.match(holders()[0] ?? "", /has not said who it is/);
  assert.match(holders()[1] ?? "", /^fwd-0, process 7/);
  assert.match(String(health.conditions()[0]?.sentence), /fwd-0/);
  released.resolve();
  await owning;
  assert.deepEqual([health.conditions(), log.of("state-folder-claimed").length], [[], 1]);
  writeFileSync(join(statePath, "holder"), JSON.stringify({ ...holder, name: "fwd-2" }));
  await systemClock.sleep(20); // an event that is heard would be by then
  assert.equal(holders().length, 2);
  await giveUp();
});

test("a state folder that is another one is locked again, and the lock of the one before given up", async (t) => {
  const { clock, log, locks, own, giveUp, released } = owner(t);
  await own();
  for (const lock of locks.given) lock.isCurrent = false;
  await clock.pass(5_100);
  await untilSigned(log, 1);
  await clock.pass(60_000);
  assert.deepEqual([released(), log.of("state-folder-locked-again").length], [[1, 0], 1]);
  await giveUp();
  assert.deepEqual([released(), clock.timerCount], [[1, 1], 0]);
});

test("a state folder that cannot be locked again is logged once, and again after it could be", async (t) => {
  const { clock, log, locks, own, giveUp } = owner(t);
  await own();
  const lose = () => {
    for (const lock of locks.given) lock.isCurrent = false;
    locks.failure = new Error("no such folder");
  };
  lose();
  await clock.pass(30_000);
  assert.equal(log.of("state-folder-not-locked").length, 1);
  locks.failure = undefined;
  await clock.pass(5_000);
  await untilSigned(log, 1);
  await clock.pass(5_000);
  lose();
  await clock.pass(30_000);
  assert.equal(log.of("state-folder-not-locked").length, 2);
  await giveUp();
  assert.equal(clock.timerCount, 0);
});

for (const isDeaf of [false, true]) {
  test(`a stop while the folder is waited for again ${isDeaf ? "keeps no lock that comes all the same" : "ends the waiting"}`, async (t) => {
    const { clock, log, locks, own, giveUp, released } = owner(t);
    await own();
    for (const lock of locks.given) lock.isCurrent = false;
    const held = Promise.withResolvers<void>();
    Object.assign(locks, { held: held.promise, isDeaf });
    await clock.pass(5_100);
    await giveUp();
    assert.equal(released()[0], 1);
    if (isDeaf) {
      held.resolve();
      await untilSigned(log, 1);
      assert.equal(released()[1], 1);
    }
    for (let turn = 0; turn < 10; turn += 1) await settled();
    assert.deepEqual([clock.timerCount, log.of("state-folder-not-locked")], [0, []]);
  });
}

/** The folder is signed on a real disk: that takes its time. */
async function untilSigned(log: ReturnType<typeof recordingLog>, times: number): Promise<void> {
  await until("the folder is locked again", () => log.of("state-folder-locked-again").length >= times);
  await settled();
}

test("ownStateFolder() says nothing any more of a holder that is read when the folder is ours", async (t) => {
  const { health, locks, disk, own, giveUp } = owner(t);
  const [released, read] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
  locks.held = released.promise;
  disk.ready = read.promise;
  const owning = own();
  released.resolve();
  await settled();
  read.resolve();
  await owning;
  await settled();
  assert.deepEqual(health.conditions(), []);
  await giveUp();
});

test("ownStateFolder() on a disk that takes nothing has the folder all the same, and logs that it could not sign", async (t) => {
  const { log, locks, disk, own, giveUp, released } = owner(t);
  disk.isFull = true;
  await own();
  assert.deepEqual([locks.given.length, log.of("state-holder-not-written").length], [1, 1]);
  await giveUp();
  assert.deepEqual(released(), [1]);
});
