import assert from "node:assert/strict";
import { test } from "node:test";
import { HandClock } from "../nsm/testing/fakes.ts";
import { PeerLogs } from "./peer-logs.ts";
import { recordingLog } from "./recording-log.ts";

function setUp(limits = { each: 1_000, all: 2_500 }) {
  const clock = new HandClock();
  const log = recordingLog();
  const leftOut: string[] = [];
  const isManager = (peer: string) => peer === "manager";
  const logs = new PeerLogs({ log, clock, limits, isManager, onLeftOut: (peer) => void leftOut.push(peer) });
  const say = (peer: string, times = 1) => {
    for (let at = 0; at < times; at += 1) logs.of(peer).warn("call-failed", { peer, error: "x".repeat(80) });
  };
  const saidBy = (peer: string) => log.of("call-failed").filter((fields) => fields["peer"] === peer).length;
  return { clock, log, logs, leftOut, say, saidBy };
}

test("PeerLogs lets one peer write so much in a minute, others beside it, and says what was left out when it is over", async () => {
  const { clock, log, leftOut, say, saidBy } = setUp();
  say("greedy", 1_000);
  say("honest");
  assert.ok(saidBy("greedy") > 2 && saidBy("greedy") < 10);
  assert.deepEqual([saidBy("honest"), leftOut.length, clock.timerCount], [1, 1_000 - saidBy("greedy"), 1]);
  await clock.pass(59_999);
  assert.deepEqual(log.of("log-lines-left-out"), []);
  await clock.pass(1);
  assert.deepEqual(log.of("log-lines-left-out"), [{ peer: "greedy", count: leftOut.length }]);
  const before = saidBy("greedy");
  say("greedy");
  assert.deepEqual([saidBy("greedy"), clock.timerCount], [before + 1, 0]);
});

test("PeerLogs takes the names of one peer that has many together", () => {
  const { log, logs } = setUp({ each: 1_000, all: 1_000_000 });
  for (let name = 0; name < 1_000; name += 1) logs.of(`p${name}`).info("call-failed", { peer: `p${name}` });
  logs.stop();
  const written = log.of("call-failed").length;
  assert.ok(written > 256 && written < 270);
  assert.deepEqual(log.of("log-lines-left-out"), [{ peer: "others", count: 1_000 - written }]);
});

test("PeerLogs lets all peers together write so much, beyond the reserves of sixty-four names", () => {
  const { log, logs, leftOut } = setUp();
  for (let name = 0; name < 200; name += 1) logs.of(`p${name}`).info("call-failed", { peer: `p${name}` });
  const written = log.of("call-failed").length;
  assert.ok(written > 64 + 10 && written < 64 + 30, `${written} lines`);
  assert.equal(leftOut.length, 200 - written);
});

const KIB = 1024;

/** All that peers share is used up by five of them. */
function besideFiveNoisy() {
  const scene = setUp({ each: 32 * KIB, all: 100 * KIB });
  for (const noisy of ["a", "b", "c", "d", "e"]) scene.say(noisy, 1_000);
  return scene;
}

test("PeerLogs leaves each other name two KiB a minute, and the manager its whole part, whatever five noisy names wrote", async () => {
  const { clock, say, saidBy } = besideFiveNoisy();
  for (const quiet of ["honest", "other"]) {
    say(quiet, 3);
    assert.equal(saidBy(quiet), 3);
  }
  say("honest", 100);
  assert.ok(saidBy("honest") > 5 && saidBy("honest") < 12, `${saidBy("honest")} lines`);
  say("manager", 1_000);
  assert.ok(saidBy("manager") > 100 && saidBy("manager") < 200, `${saidBy("manager")} lines`);
  const before = saidBy("honest");
  await clock.pass(60_000);
  say("honest", 100);
  assert.equal(saidBy("honest"), before + 100);
});

test("PeerLogs leaves the manager its part also when a crowd of names came before it", () => {
  const { say, saidBy } = setUp({ each: 1_000, all: 2_500 });
  for (let name = 0; name < 400; name += 1) say(`p${name}`, 10);
  say("manager");
  assert.equal(saidBy("manager"), 1);
});

test("PeerLogs leaves no error out for what others wrote, only for what its own name did", () => {
  const { logs, log, say } = besideFiveNoisy();
  say("honest", 100);
  for (let at = 0; at < 1_000; at += 1) logs.of("honest").error("teardown-failed", { error: "x".repeat(80) });
  const written = log.of("teardown-failed").length;
  assert.ok(written > 100 && written < 200, `${written} errors`);
});

test("PeerLogs.stop() says what was left out, and leaves no timer", () => {
  const { clock, log, logs, say } = setUp();
  say("greedy", 100);
  logs.stop();
  assert.deepEqual([log.of("log-lines-left-out").length, clock.timerCount], [1, 0]);
});

test("PeerLogs names sixteen peers at most whose lines were left out", () => {
  const { log, logs, say } = setUp({ each: 150, all: 1_000_000 });
  for (let name = 0; name < 20; name += 1) say(`p${name}`, 2);
  logs.stop();
  const said = log.of("log-lines-left-out");
  assert.deepEqual([said.length, said.at(-1)], [17, { peers: 4, count: 8 }]);
});

test("PeerLogs cuts long texts at a whole character, says how long they were, and carries bound fields", () => {
  const { log, logs } = setUp({ each: 10_000, all: 10_000 });
  const text = `${"a".repeat(1_023)}äöü`;
  logs
    .of("p")
    .with({ connection: "c1" })
    .error("call-failed", { error: text, count: 7, whole: "ä".repeat(512) });
  assert.deepEqual(log.of("call-failed"), [
    { connection: "c1", error: `${"a".repeat(1_023)}… (1029 bytes)`, count: 7, whole: "ä".repeat(512) },
  ]);
});

test("PeerLogs counts what is written: a control character takes six bytes", () => {
  const { log, logs } = setUp();
  for (let at = 0; at < 10; at += 1) logs.of("p").warn("call-failed", { error: "\u0000".repeat(100) });
  assert.equal(log.of("call-failed").length, 1);
});

test("PeerLogs counts no line that is off by default", () => {
  const { log, logs } = setUp();
  for (let at = 0; at < 100; at += 1) {
    logs.of("p").debug("a", { at });
    logs.of("p").with({ at }).trace("b");
  }
  assert.deepEqual([log.of("a").length, log.of("b").length, log.of("b")[1]], [100, 100, { at: 1 }]);
});

test("PeerLogs by default lets one name write 32 KiB a minute, and many 160 KiB beyond their reserves", () => {
  const { clock, log } = setUp();
  const logs = new PeerLogs({ log, clock });
  const kibOf = (peers: readonly string[]) => {
    const before = log.of("call-failed").length;
    for (const peer of peers) {
      for (let at = 0; at < 1_000; at += 1) logs.of(peer).warn("call-failed", { peer, error: "x".repeat(900) });
    }
    return log.of("call-failed").length - before; // each has some 1,000 bytes
  };
  const one = kibOf(["greedy"]);
  assert.ok(one > 28 && one <= 32, `${one} KiB`);
  const all = one + kibOf(Array.from({ length: 9 }, (_, at) => `noisy-${at}`));
  assert.ok(all > 150 && all <= 160 + 10 * 2, `${all} KiB`);
  logs.stop();
});
