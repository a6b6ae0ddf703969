import assert from "node:assert/strict";
import { test } from "node:test";
import { within } from "../../test/scenes/until.ts";
import { type EscapedError, guarded, guardProbe, onEscapedError } from "./event-guard.ts";

function heard(t: { after(work: () => void): void }): EscapedError[] {
  const escaped: EscapedError[] = [];
  t.after(onEscapedError((error) => escaped.push(error)));
  return escaped;
}

test("guarded() hands on its arguments, and reports nothing where nothing is thrown", (t) => {
  const escaped = heard(t);
  const seen: unknown[] = [];
  guarded("timer", (a: number, b: string) => void seen.push(a, b))(1, "x");
  assert.deepEqual([seen, escaped], [[1, "x"], []]);
});

test("guarded() reports what was thrown, closes what it belongs to with the event's arguments, and throws nothing", (t) => {
  const escaped = heard(t);
  const error = new Error("odd");
  const closed: unknown[] = [];
  const fail = () => {
    throw error;
  };
  guarded("tcp", fail as (socket: string) => void, (why, socket) => closed.push(why, socket))("s1");
  assert.deepEqual(escaped, [{ source: "tcp", error }]);
  assert.deepEqual(closed, [error, "s1"]);
});

test("guarded() reports a failure to close too, and things that are no errors", (t) => {
  const escaped = heard(t);
  const close = () => {
    throw new Error("cannot close");
  };
  const fail = () => {
    throw "text";
  };
  guarded("tls", fail, close)();
  assert.deepEqual(
    escaped.map(({ error }) => error.message),
    ["text", "cannot close"],
  );
});

test("guarded() runs a test's probe inside the guard", (t) => {
  const escaped = heard(t);
  t.after(() => {
    guardProbe.before = undefined;
  });
  guardProbe.before = (source) => {
    throw new Error(`injected into ${source}`);
  };
  guarded("abort", () => assert.fail("not reached"))();
  assert.equal(escaped[0]?.error.message, "injected into abort");
});

test("guarded() throws an uncaught error where there is no listener", async () => {
  const uncaught = Promise.withResolvers<unknown>();
  const others = process.listeners("uncaughtException");
  process.removeAllListeners("uncaughtException");
  process.once("uncaughtException", uncaught.resolve);
  const error = new Error("unheard");
  try {
    guarded("timer", () => {
      throw error;
    })();
    assert.equal(await within("the error is thrown again", uncaught.promise), error);
  } finally {
    for (const other of others) process.on("uncaughtException", other);
  }
});
