import assert from "node:assert/strict";
import { test } from "node:test";
import { readTokenHeaders, tokenHeaders } from "./token-headers.ts";

const NAME = "nsm-client-token";
const TIME = "nsm-client-token-expires";

test("tokenHeaders() writes what readTokenHeaders() reads", () => {
  const issued = { token: "a.b.c", expiresMs: Date.UTC(2026, 10, 23, 21, 0, 10) };
  const headers = tokenHeaders(issued);
  assert.deepEqual(headers, { [NAME]: "a.b.c", [TIME]: "2026-11-23T21:00:10Z" });
  assert.deepEqual(readTokenHeaders(new Map(Object.entries(headers).map(([key, value]) => [key, [value]]))), issued);
});

test("tokenHeaders() writes a fraction without trailing zeros", () => {
  assert.equal(tokenHeaders({ token: "t", expiresMs: 1_200 })[TIME], "1970-01-01T00:00:01.2Z");
  assert.equal(tokenHeaders({ token: "t", expiresMs: 100_000 })[TIME], "1970-01-01T00:01:40Z");
});

const times: readonly (readonly [string, number | undefined])[] = [
  ["2026-11-23T21:00:10Z", Date.UTC(2026, 10, 23, 21, 0, 10)],
  ["2026-11-23T21:00:10.123456789Z", Date.UTC(2026, 10, 23, 21, 0, 10, 123)],
  ["2026-11-23T21:00:10.5+02:30", Date.UTC(2026, 10, 23, 18, 30, 10, 500)],
  ["2026-11-23T21:00:10-07:00", Date.UTC(2026, 10, 24, 4, 0, 10)],
  ["2024-02-29T00:00:00Z", Date.UTC(2024, 1, 29)],
  ["2026-02-29T00:00:00Z", undefined],
  ["2026-11-23T24:00:00Z", undefined],
  ["2026-11-23T21:00:60Z", undefined],
  ["2026-11-23T21:00:10", undefined],
  ["2026-11-23 21:00:10Z", undefined],
  ["2026-11-23T21:00:10.Z", undefined],
  ["2026-11-23T21:00:10.1234567890Z", undefined],
  ["2026-11-23T21:00:10+24:00", undefined],
  ["2026-11-23T21:00:10+0200", undefined],
  [" 2026-11-23T21:00:10Z", undefined],
  ["1764000000", undefined],
  ["", undefined],
];
for (const [text, expiresMs] of times) {
  test(`readTokenHeaders() ${expiresMs === undefined ? "ignores" : "reads"} the time "${text}"`, () => {
    assert.equal(
      readTokenHeaders(
        new Map([
          [NAME, ["t"]],
          [TIME, [text]],
        ]),
      )?.expiresMs,
      expiresMs,
    );
  });
}

const time = ["2026-11-23T21:00:10Z"];
const pairs: readonly (readonly [string, ReadonlyMap<string, readonly string[]>])[] = [
  ["no token", new Map([[TIME, time]])],
  ["no time", new Map([[NAME, ["t"]]])],
  [
    "two tokens",
    new Map([
      [NAME, ["t", "u"]],
      [TIME, time],
    ]),
  ],
  [
    "two times",
    new Map([
      [NAME, ["t"]],
      [TIME, [...time, ...time]],
    ]),
  ],
  [
    "an empty list",
    new Map([
      [NAME, []],
      [TIME, time],
    ]),
  ],
  ["nothing", new Map()],
];
for (const [says, metadata] of pairs) {
  test(`readTokenHeaders() ignores the pair with ${says}`, () => {
    assert.equal(readTokenHeaders(metadata), undefined);
  });
}
