import assert from "node:assert/strict";
import { test } from "node:test";
import { createTestCa } from "../../sandbox/identity/x509.ts";
import { HandClock } from "../nsm/testing/fakes.ts";
import { Health, silentLog } from "../telemetry/index.ts";
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
