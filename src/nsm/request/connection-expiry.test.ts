import assert from "node:assert/strict";
import { test } from "node:test";
import { lifetimeMs } from "./connection-expiry.ts";

const rows: readonly {
  readonly says: string;
  readonly leftMs: number;
  readonly callerDeadlineMs: number | undefined;
  readonly lives: number;
}[] = [
  { says: "takes the caller's timeout off", leftMs: 600_000, callerDeadlineMs: 15_000, lives: 585_000 },
  { says: "takes nothing off without one", leftMs: 600_000, callerDeadlineMs: undefined, lives: 600_000 },
  { says: "lets a long timeout take no more than half", leftMs: 60_000, callerDeadlineMs: 300_000, lives: 30_000 },
  { says: "is nothing for a token that has expired", leftMs: -5, callerDeadlineMs: 15_000, lives: 0 },
  { says: "does not grow by a timeout that has passed", leftMs: 1_000, callerDeadlineMs: -50, lives: 1_000 },
];
for (const { says, leftMs, callerDeadlineMs, lives } of rows) {
  test(`lifetimeMs() ${says}`, () => {
    assert.equal(lifetimeMs({ nowMs: 1e12, tokenExpiresMs: 1e12 + leftMs, callerDeadlineMs }), lives);
  });
}
