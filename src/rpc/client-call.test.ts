import assert from "node:assert/strict";
import { test } from "node:test";
import { startClientCall } from "./client-call.ts";
import { encodeFrame } from "./frame.ts";
import { RpcError } from "./status.ts";
import type { AnswerReader, ClientConnection } from "./transport.ts";

/** A call over a connection that does what the test says; what the caller hears is written down. */
function calling(onMessage: (text: string) => void = () => {}) {
  const heard: string[] = [];
  let reader: AnswerReader | undefined;
  let cancels = 0;
  const connection = {
    fds: { send: (fd: unknown) => void heard.push(`file ${fd}`) },
    call(_outgoing: unknown, answer: AnswerReader) {
      heard.push("call");
      reader = answer;
      return { cancel: () => void cancels++, pause() {}, resume() {} };
    },
  } as unknown as ClientConnection;
  const call = startClientCall(connection, {
    path: "/a.B/C",
    timeoutMs: undefined,
    metadata: {},
    fds: [7 as never],
    request: new Uint8Array(),
    maxMessageBytes: 8,
    onMessage(message) {
      heard.push(Buffer.from(message).toString());
      onMessage(Buffer.from(message).toString());
    },
    onEnd: ({ error }) => void heard.push(`end ${error?.code ?? "OK"}`),
  });
  const answer = reader ?? assert.fail("it calls at once");
  const say = (...texts: readonly string[]) =>
    answer.data(Buffer.concat(texts.map((text) => encodeFrame(Buffer.from(text)))));
  return { heard, call, answer, say, cancels: () => cancels };
}

const CANCELLED = new RpcError("CANCELLED", "enough");

test("startClientCall() sends files right before the call, and hears messages and one end", () => {
  const { heard, answer, say } = calling();
  say("one", "two");
  answer.ended(undefined, new Map());
  answer.ended(new RpcError("UNAVAILABLE", "lost"), new Map());
  assert.deepEqual(heard, ["file 7", "call", "one", "two", "end OK"]);
});

test("ClientCall.cancel() ends the call at once: what is still on its way is not heard", () => {
  const { heard, call, answer, say, cancels } = calling();
  say("one");
  call.cancel(CANCELLED);
  say("two");
  answer.ended(undefined, new Map());
  assert.deepEqual(heard.slice(2), ["one", "end CANCELLED"]);
  assert.equal(cancels(), 1);
});

test("startClientCall() gives up a call whose message is too long, and takes nothing of it", () => {
  const { heard, say, cancels } = calling();
  say("one");
  say("longer than eight bytes");
  say("two");
  assert.deepEqual(heard.slice(2), ["one", "end RESOURCE_EXHAUSTED"]);
  assert.equal(cancels(), 1);
});

test("startClientCall() does not take its caller's failure for the peer's", () => {
  const { heard, answer, say } = calling(() => {
    throw new Error("mine");
  });
  assert.throws(() => say("one"), /mine/);
  answer.failed(new Error("mine"));
  assert.deepEqual(heard.slice(2), ["one", "end INTERNAL"]);
});
