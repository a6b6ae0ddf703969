import assert from "node:assert/strict";
import test from "node:test";
import { createLog } from "./create-log.ts";
import type { LogLevel } from "./log.ts";
import { recordingLog } from "./recording-log.ts";

function captured(level: LogLevel = "info", isPretty = false) {
  const lines: string[] = [];
  const log = createLog({ level, isPretty, write: (line) => lines.push(line) });
  return { log, lines, last: () => JSON.parse(lines.at(-1) ?? "null") as Record<string, unknown> };
}

const jwt = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJzcGlmZmU6Ly9hIn0.c2lnbmF0dXJl";
const pem = "-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBM\n-----END PRIVATE KEY-----";

test("createLog() writes one JSON line with level, time and event", () => {
  const { log, lines, last } = captured();
  log.info("vf-bound", { vf: "0000:3b:02.1", tookMs: 3 });
  assert.equal(lines.length, 1);
  assert.match(lines[0] ?? "", /\n$/);
  const { time, ...rest } = last();
  assert.match(String(time), /^\d{4}-\d\d-\d\dT.*Z$/);
  assert.deepEqual(rest, { level: "info", event: "vf-bound", vf: "0000:3b:02.1", tookMs: 3 });
});

test("createLog() leaves out what is more talkative than its level, and children follow a change", () => {
  const { log, lines } = captured();
  const child = log.with({ module: "rpc" }).with({ remote: "unix" });
  child.debug("call");
  assert.equal(lines.length, 0);
  log.level = "trace";
  child.trace("call");
  assert.match(lines[0] ?? "", /"module":"rpc","remote":"unix"/);
});

test("createLog() keeps a field that is named like a part of the line", () => {
  const { log, last } = captured();
  log.info("changed", { level: 3, event: "x" });
  assert.equal(last()["level"], "info");
  assert.equal(last()["level_"], 3);
  assert.equal(last()["event_"], "x");
});

const secrets = [
  { says: "a JWT in a field", fields: { note: `got ${jwt}.` } },
  { says: "a JWT in a list in an object", fields: { path: [{ id: "a", note: jwt }] } },
  { says: "a JWT in the name of a field", fields: { labels: { [jwt]: "x" } } },
  { says: "a PEM block", fields: { note: pem } },
  { says: "a cut PEM block", fields: { note: pem.slice(0, 40) } },
  { says: "a JWT in an error's message", fields: { err: new Error(`cannot parse ${jwt}`) } },
  { says: "a PEM block in a cause", fields: { err: new Error("no", { cause: new Error(pem) }) } },
  { says: "a field named token", fields: { token: "eyJhbGciOiJFUzI1NiJ9 MIGHAgEAMBM" } },
  { says: "a field named privateKey in a map", fields: { m: new Map([["privateKey", "MIGHAgEAMBM"]]) } },
  { says: "bytes", fields: { raw: Buffer.from(pem) } },
];
for (const row of secrets) {
  test(`createLog() hides ${row.says}`, () => {
    const { log, lines } = captured();
    log.error("failed", row.fields);
    assert.doesNotMatch(lines[0] ?? "", /eyJhbGciOiJFUzI1NiJ9|MIGHAgEAMBM|BEGIN/);
  });
}

test("createLog() shows an error with its code and its causes", () => {
  const { log, last } = captured();
  const cause = Object.assign(new Error("no such device"), { code: "ENODEV", errno: 19 });
  log.error("failed", { err: new Error("Cannot bind", { cause }) });
  const err = last()["err"] as Record<string, unknown>;
  assert.equal(err["message"], "Cannot bind");
  assert.match(String(err["stack"]), /log\.test\.ts/);
  const seen = err["cause"] as Record<string, unknown>;
  assert.deepEqual([seen["message"], seen["code"], seen["errno"]], ["no such device", "ENODEV", 19]);
});

test("createLog() survives cycles, bigints, long texts and long lists", () => {
  const { log, last } = captured();
  const loop: Record<string, unknown> = { n: 1n };
  loop["self"] = loop;
  log.info("odd", {
    loop,
    text: "x".repeat(10_000),
    list: Array.from({ length: 500 }, (_, i) => i),
    nothing: undefined,
  });
  assert.equal((last()["loop"] as Record<string, unknown>)["n"], "1");
  assert.ok(String(last()["text"]).length < 5000);
  assert.equal((last()["list"] as unknown[]).length, 101);
});

test("createLog() writes a line that cannot steer the terminal of the operator", () => {
  const { log, lines } = captured("info", true);
  log.warn("vf-bound", { vf: "0000:3b:02.1", peer: "evil\u001b[2Jname", count: 2 });
  const plain = (lines[0] ?? "").replaceAll(/\p{Cc}\[\d+m/gu, "");
  assert.match(plain, /^\d\d:\d\d:\d\d\.\d{3} WARN {2}vf-bound vf=0000:3b:02\.1 peer="evil\\u001b\[2Jname" count=2\n$/);
});

test("createLog() writes names and texts that neither break the line nor turn its direction", () => {
  const { log, lines } = captured("info", true);
  log.warn("vf-bound", { "a\nb": "x", peer: "\u202eevil\u2028\u2066", said: "\u009b2J" });
  const plain = (lines[0] ?? "").replaceAll(/\p{Cc}\[\d+m/gu, "");
  assert.ok(plain.endsWith(' a\\x0ab=x peer="\\u202eevil\\u2028\\u2066" said="\\x9b2J"\n'), plain);
});

test("recordingLog() keeps events of itself and its children in order", () => {
  const log = recordingLog();
  log.info("a", { n: 1 });
  log.with({ module: "rpc" }).trace("b");
  assert.deepEqual(log.events, [
    { level: "info", event: "a", fields: { n: 1 } },
    { level: "trace", event: "b", fields: { module: "rpc" } },
  ]);
  assert.deepEqual(log.of("b"), [{ module: "rpc" }]);
});

test("createLog() hides what a secret is, not whether there is one, and shows the stack of an error and its first cause", () => {
  const lines: string[] = [];
  const log = createLog({ level: "info", write: (line) => lines.push(line) });
  const cause = new Error("second", { cause: new Error("third", { cause: new Error("fourth") }) });
  log.info("odd", { token: true, password: "x", err: new Error("first", { cause }) });
  const { token, password, err } = JSON.parse(lines[0] ?? "");
  assert.deepEqual([token, password], [true, "<hidden>"]);
  const stacks = [err, err.cause, err.cause.cause, err.cause.cause.cause].map(({ stack }) => typeof stack === "string");
  assert.deepEqual([err.message, err.cause.message], ["first", "second"]);
  assert.equal(stacks[0], true);
  assert.equal(stacks[3], false);
});

test("createLog() cuts what is deeper than six fields, and the event of a readable line steers no terminal either", () => {
  const lines: string[] = [];
  const deep = { a: { b: { c: { d: { e: { f: { g: 1 } } } } } } };
  createLog({ level: "info", write: (line) => lines.push(line) }).info("x", deep);
  assert.deepEqual(JSON.parse(lines[0] ?? "").a, { b: { c: { d: { e: { f: "<deep>" } } } } });
  createLog({ level: "info", isPretty: true, write: (line) => lines.push(line) }).info("odd\u001b[2J");
  assert.match(lines[1] ?? "", /odd\\x1b\[2J/);
});
