import assert from "node:assert/strict";
import { test } from "node:test";
import { createTestCa } from "../../sandbox/identity/x509.ts";
import { HandClock } from "../nsm/testing/fakes.ts";
import { Health, silentLog } from "../telemetry/index.ts";
import { recordingLog } from "../telemetry/recording-log.ts";
import { readSvid } from "./read-svid.ts";
import { SvidExpiry } from "./svid-expiry.ts";

const HOUR_MS = 3_600_000;
const ca = createTestCa("home.example");

function svidUntil(notAfterMs: number) {
  const { certChainDer, keyDer } = ca.issue({
    spiffeId: "spiffe://home.example/forwarder",
    notBeforeMs: notAfterMs - HOUR_MS,
    notAfterMs,
  });
  return readSvid(certChainDer, keyDer);
}

for (const [code, passedMs] of [
  ["svid-expiring", HOUR_MS - 60_000],
  ["svid-expired", HOUR_MS + 1],
] as const) {
  test(`SvidExpiry.watch() clears ${code} when a new SVID has come`, async () => {
    const clock = new HandClock(Date.UTC(2026, 0, 1));
    const health = new Health(clock);
    const watch = new SvidExpiry({ clock, log: silentLog, health });
    const codes = () => health.conditions().map((condition) => condition.code);
    watch.watch(svidUntil(clock.now() + HOUR_MS));
    await clock.pass(passedMs);
    assert.deepEqual(codes(), [code]);
    watch.watch(svidUntil(clock.now() + HOUR_MS));
    assert.deepEqual(codes(), []);
    watch.watch(svidUntil(clock.now() + HOUR_MS));
    assert.equal(clock.timerCount, 1, "the SVID before is not watched any more");
    watch.stop();
    assert.equal(clock.timerCount, 0);
  });
}

for (const [leftMs, code] of [
  [HOUR_MS / 4 + 1000, undefined],
  [HOUR_MS / 4 - 1000, "svid-expiring"],
  [-1000, "svid-expired"],
] as const) {
  test(`SvidExpiry.watch() of an SVID of an hour that has ${leftMs / 1000} s left when it comes: ${code}`, async () => {
    const clock = new HandClock(Date.UTC(2026, 0, 1));
    const health = new Health(clock);
    const log = recordingLog();
    const watch = new SvidExpiry({ clock, log, health });
    watch.watch(svidUntil(clock.now() + leftMs));
    await clock.pass(0);
    assert.deepEqual(
      log.events.map(({ event }) => event),
      code === undefined ? [] : [code === "svid-expired" ? code : "svid-near-expiry"],
    );
    assert.deepEqual(
      health.conditions().map((condition) => condition.code),
      code === undefined ? [] : [code],
    );
    watch.stop();
  });
}

test("SvidExpiry.watch() follows a clock that is set ahead, and back again", async () => {
  const clock = new HandClock(Date.UTC(2026, 0, 1));
  let setMs = 0;
  const settable = {
    now: () => clock.now() + setMs,
    monotonicMs: () => clock.monotonicMs(),
    after: (delayMs: number, callback: () => void) => clock.after(delayMs, callback),
    sleep: (delayMs: number, signal?: AbortSignal) => clock.sleep(delayMs, signal),
  };
  const health = new Health(clock);
  const watch = new SvidExpiry({ clock: settable, log: silentLog, health });
  const codes = () => health.conditions().map((condition) => condition.code);
  watch.watch(svidUntil(clock.now() + HOUR_MS));
  setMs = 2 * HOUR_MS;
  await clock.pass(61_000);
  assert.deepEqual(codes(), ["svid-expired"]);
  setMs = 0;
  await clock.pass(61_000);
  assert.deepEqual(codes(), []);
  setMs = -2 * HOUR_MS;
  await clock.pass(HOUR_MS);
  assert.deepEqual(codes(), [], "by the clock that is there it has not ended");
  setMs = 0;
  await clock.pass(61_000);
  assert.deepEqual(codes(), ["svid-expired"]);
  watch.stop();
  assert.equal(clock.timerCount, 0);
});
