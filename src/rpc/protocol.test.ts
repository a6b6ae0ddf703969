import assert from "node:assert/strict";
import { test } from "node:test";
import { DeadlineError } from "../async/index.ts";
import { encodeFrame, FrameReader } from "./frame.ts";
import { decodeStatusMessage, encodeStatusMessage, statusFromHttp, statusFromReset } from "./http2/status-headers.ts";
import { formatTimeout, parseTimeout } from "./http2/timeout.ts";
import { readMetadata, toHeaders } from "./metadata.ts";
import { RpcError, statusFromNumber, statusNumber, toRpcError } from "./status.ts";
import { parseTarget } from "./target.ts";

test("encodeStatusMessage() leaves printable ASCII and encodes the rest as percent UTF-8", () => {
  assert.equal(encodeStatusMessage("a b~"), "a b~");
  assert.equal(encodeStatusMessage("100 %\nö"), "100 %25%0A%C3%B6");
  assert.equal(encodeStatusMessage("\u{1f600}\ud800"), "%F0%9F%98%80%EF%BF%BD");
});

const messages = [
  ["plain", "plain"],
  ["%C3%B6%25", "ö%"],
  ["%zz and %", "%zz and %"],
  ["%41%4", "A%4"],
  ["ö unencoded%21", "ö unencoded!"],
] as const;
for (const [encoded, text] of messages) {
  test(`decodeStatusMessage() reads ${JSON.stringify(encoded)}`, () => {
    assert.equal(decodeStatusMessage(encoded), text);
  });
}

test("encodeStatusMessage() cuts what is longer than a header bears, and no character in two", () => {
  for (const sign of ["x", "é", "\u{1f600}"]) {
    const encoded = encodeStatusMessage(sign.repeat(10_000));
    assert.ok(encoded.length > 4000 && encoded.length < 4110, `${encoded.length}`);
    assert.match(decodeStatusMessage(encoded), new RegExp(`^${sign}+…$`, "u"));
  }
});

test("statusNumber() and statusFromNumber() are each other's inverse, and odd numbers are UNKNOWN", () => {
  const numbers = Array.from({ length: 17 }, (_, number) => number);
  assert.deepEqual(
    numbers.map((number) => statusNumber(statusFromNumber(number))),
    numbers,
  );
  assert.deepEqual(
    [statusFromNumber(99), statusFromNumber(Number.NaN), statusFromNumber(-1)],
    ["UNKNOWN", "UNKNOWN", "UNKNOWN"],
  );
  assert.deepEqual([statusNumber("PERMISSION_DENIED"), statusNumber("UNAUTHENTICATED")], [7, 16]);
});

test("statusFromHttp() and statusFromReset() follow the tables of the protocol", () => {
  assert.deepEqual([400, 401, 403, 404, 429, 503, 500].map(statusFromHttp), [
    "INTERNAL",
    "UNAUTHENTICATED",
    "PERMISSION_DENIED",
    "UNIMPLEMENTED",
    "UNAVAILABLE",
    "UNAVAILABLE",
    "UNKNOWN",
  ]);
  assert.deepEqual([7, 8, 11, 12, 1].map(statusFromReset), [
    "UNAVAILABLE",
    "CANCELLED",
    "RESOURCE_EXHAUSTED",
    "PERMISSION_DENIED",
    "INTERNAL",
  ]);
});

test("toRpcError() keeps a code, knows a deadline and calls the rest UNKNOWN", () => {
  const error = new RpcError("ABORTED", "x");
  assert.equal(toRpcError(error), error);
  assert.equal(toRpcError(new DeadlineError("late")).code, "DEADLINE_EXCEEDED");
  assert.equal(toRpcError(new Error("x")).code, "UNKNOWN");
  assert.equal(toRpcError("text").message, "text");
});

const timeouts = [
  ["1H", 3_600_000],
  ["2M", 120_000],
  ["3S", 3000],
  ["250m", 250],
  ["1500u", 1.5],
  ["99999999n", 99.999999],
  ["0m", 0],
  ["", undefined],
  ["5", undefined],
  ["123456789m", undefined],
  ["-1m", undefined],
  ["1 m", undefined],
] as const;
for (const [text, ms] of timeouts) {
  test(`parseTimeout() reads ${JSON.stringify(text)}`, () => {
    assert.equal(parseTimeout(text), ms);
  });
}

test("formatTimeout() never says less than it was given, in at most eight digits", () => {
  assert.deepEqual([0, 0.2, 15_000, 1e8, 1e12, 1e14].map(formatTimeout), [
    "0m",
    "1m",
    "15000m",
    "100000S",
    "16666667M",
    "27777778H",
  ]);
});

test("FrameReader puts messages together however they are cut", () => {
  const sent = [Buffer.from("first"), Buffer.alloc(0), Buffer.alloc(100_000, 7), Buffer.from("last")];
  const wire = Buffer.concat(sent.map(encodeFrame));
  for (const piece of [1, 3, 5, 4096, wire.length]) {
    const reader = new FrameReader("a message", 100_000);
    const got: Uint8Array[] = [];
    for (let at = 0; at < wire.length; at += piece) got.push(...reader.push(wire.subarray(at, at + piece)));
    assert.deepEqual(got.map(Buffer.from), sent);
    assert.equal(reader.isEmpty, true);
  }
});

test("FrameReader refuses what is too long or compressed as soon as its prefix is there", () => {
  const reader = new FrameReader("a message", 10);
  assert.deepEqual(reader.push(Buffer.from([0, 0, 0, 0])), []);
  assert.throws(() => reader.push(Buffer.from([11])), { code: "RESOURCE_EXHAUSTED" });
  for (const flag of [1, 2, 0x80]) {
    const compressed = Buffer.from([flag, 0, 0, 0, 1]);
    assert.throws(() => new FrameReader("a message", 10).push(compressed), { code: "UNIMPLEMENTED" }, `${flag}`);
  }
  const half = new FrameReader("a message", 10);
  half.push(Buffer.from([0, 0]));
  assert.equal(half.isEmpty, false);
});

test("readMetadata() keeps keys that came twice apart and hides what belongs to the protocol", () => {
  const block = [":path", "/a", "te", "trailers", "grpc-timeout", "1S", "x", "1", "content-type", "b", "x", "2"];
  assert.deepEqual(
    [...readMetadata(block, ["x", "3", "user-agent", "go"])],
    [
      ["x", ["1", "2", "3"]],
      ["user-agent", ["go"]],
    ],
  );
});

test("toHeaders() joins its parts and refuses what cannot travel", () => {
  assert.deepEqual(toHeaders({ A: "1" }, { a: ["2"], "b-bin": "AA==" }), { a: ["1", "2"], "b-bin": ["AA=="] });
  assert.deepEqual(Object.entries(toHeaders({ ["__proto__"]: "1" }, { a: "2" })), [
    ["__proto__", ["1"]],
    ["a", ["2"]],
  ]);
  for (const bad of [
    { "a b": "x" },
    { "grpc-status": "0" },
    { ":path": "/" },
    { te: "x" },
    { a: "ö" },
    { a: "1\r\nb: 2" },
  ]) {
    assert.throws(() => toHeaders(bad as Record<string, string>), { code: "INTERNAL" });
  }
});

const targets = [
  ["unix:///run/a.sock", { kind: "unix", path: "/run/a.sock" }],
  ["unix:/run/a.sock", { kind: "unix", path: "/run/a.sock" }],
  ["tcp://10.0.0.1:80", { kind: "tcp", host: "10.0.0.1", port: 80 }],
  ["tcp://[fd00::1]:443", { kind: "tcp", host: "fd00::1", port: 443 }],
  ["tcp://nsmgr.local:0", { kind: "tcp", host: "nsmgr.local", port: 0 }],
  ["unix://relative", undefined],
  ["unix://", undefined],
  [`unix:///${"x".repeat(107)}`, undefined],
  [`unix:///${"é".repeat(60)}`, undefined],
  ["unix:///a\0b", undefined],
  ["tcp://h:65535", { kind: "tcp", host: "h", port: 65_535 }],
  ["tcp://h:65536", undefined],
  ["tcp://h", undefined],
  ["inode://4/5", undefined],
  ["", undefined],
] as const;
for (const [text, target] of targets) {
  test(`parseTarget() reads ${JSON.stringify(text.slice(0, 30))}`, () => {
    if (target === undefined) assert.throws(() => parseTarget(text), { code: "INVALID_ARGUMENT" });
    else assert.deepEqual(parseTarget(text), target);
  });
}
