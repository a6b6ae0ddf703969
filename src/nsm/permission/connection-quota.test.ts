import assert from "node:assert/strict";
import { test } from "node:test";
import { PeerLogs } from "../../telemetry/index.ts";
import { recordingLog } from "../../telemetry/recording-log.ts";
import { HandClock } from "../testing/fakes.ts";
import { ConnectionQuota } from "./connection-quota.ts";
import { CONNECTION_BYTES } from "./quota.ts";

const held = (name: string, bytes: number) => ({
  ...{ id: "c1", bytes, holdsVf: false },
  owner: { spiffeId: `spiffe://test/${name}`, isManager: false },
});

function setUp(limits = { each: 32_768, all: 163_840 }) {
  const [clock, log] = [new HandClock(), recordingLog()];
  const logs = new PeerLogs({ log, clock, limits });
  const refusals: string[] = [];
  const quota = new ConnectionQuota(new Map(), { logs, clock, onRefused: (kind) => void refusals.push(kind) });
  const refuse = (name: string) =>
    assert.throws(() => quota.check(held(name, CONNECTION_BYTES + 1)), { name: "NsmError" });
  const reported = () => log.of("quota-reached").map(({ owner }) => String(owner).split("/").at(-1));
  return { clock, logs, quota, refuse, refusals, reported };
}

test("ConnectionQuota reports the refusals of an owner once a minute, whatever it admits in between", async () => {
  const { clock, quota, refuse, reported } = setUp();
  for (let time = 0; time < 100; time += 1) {
    refuse("greedy");
    quota.check(held("greedy", 1));
  }
  refuse("other");
  assert.deepEqual(reported(), ["greedy", "other"]);
  await clock.pass(59_999);
  refuse("greedy");
  assert.deepEqual(reported(), ["greedy", "other"]);
  await clock.pass(1);
  refuse("greedy");
  refuse("greedy");
  assert.deepEqual(reported(), ["greedy", "other", "greedy"]);
});

test("ConnectionQuota counts each refusal, also those that it does not report", () => {
  const { refuse, refusals, reported } = setUp();
  for (let time = 0; time < 2; time += 1) refuse("greedy");
  assert.deepEqual([refusals, reported()], [["connection-bytes", "connection-bytes"], ["greedy"]]);
});

test("ConnectionQuota remembers so many owners whose refusals it has reported, and forgets the oldest first", () => {
  const { refuse, reported } = setUp();
  for (let nth = 0; nth <= 256; nth += 1) refuse(`p${nth}`);
  refuse("p2");
  refuse("p0");
  assert.deepEqual(reported().slice(256), ["p256", "p0"]);
});

test("ConnectionQuota writes under the owner's name, and of a crowd of names no more than peers may", () => {
  const { logs, refuse, reported } = setUp({ each: 1_000, all: 10_000 });
  for (let nth = 0; nth < 20; nth += 1) logs.of("spiffe://test/greedy").info("call-failed", { error: "x".repeat(80) });
  refuse("greedy");
  refuse("honest");
  assert.deepEqual(reported(), ["honest"]);
  for (let nth = 0; nth < 2_000; nth += 1) refuse(`p${nth}`);
  assert.ok(reported().length < 200, `${reported().length} lines`);
});
