// What a call makes of its limits, its tries and its errors, over connections that do what the test says.
import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { within } from "../../test/scenes/until.ts";
import { NetworkService } from "../gen/networkservice_pb.ts";
import { HandClock, settled } from "../nsm/testing/fakes.ts";
import { silentLog } from "../telemetry/index.ts";
import { type ClientOptions, RpcClient } from "./client.ts";
import { encodeFrame } from "./frame.ts";
import { RpcError, Untouched } from "./status.ts";
import type { AnswerReader, ClientConnection, OutgoingCall, Transport } from "./transport.ts";

const { request: Request } = NetworkService.method;
const target = "unix:///a";
const IDLE_MS = 1_000;

/** What a connection does with a call; an error is thrown at once. */
type Behaviour = (reader: AnswerReader) => void;

const answer: Behaviour = (reader) => {
  reader.data(encodeFrame(new Uint8Array()));
  reader.ended(undefined, new Map());
};
const fails =
  (error: RpcError): Behaviour =>
  (reader) =>
    reader.ended(error, new Map());

function world(t: TestContext, behaviours: Behaviour[], options: Partial<ClientOptions> = {}) {
  const clock = new HandClock();
  const outgoing: OutgoingCall[] = [];
  const closing = new AbortController();
  const dialled = Promise.withResolvers<void>();
  const paper = {
    remote: "paper",
    farewell: new AbortController().signal,
    closed: closing.signal,
    cut: () => closing.abort(new RpcError("UNAVAILABLE", "cut")),
    call(call: OutgoingCall, reader: AnswerReader) {
      outgoing.push(call);
      const behave = behaviours.shift();
      if (behave) queueMicrotask(() => behave(reader));
      return { cancel() {}, pause() {}, resume() {} };
    },
  } as unknown as ClientConnection;
  const transport = {
    identify: (name: string) => name,
    dial: () => dialled.promise.then(() => paper),
  } as unknown as Transport;
  const client = new RpcClient({ transport, log: silentLog, clock, dialTimeoutMs: 500, idleMs: IDLE_MS, ...options });
  t.after(() => within("the client has closed", client.close()));
  const call = (timeoutMs?: number) =>
    within("the call ends", client.call(target, Request, {}, timeoutMs === undefined ? {} : { timeoutMs }));
  return { clock, outgoing, call, open: dialled.resolve, isCut: () => closing.signal.aborted };
}

test("RpcClient.call() gives the peer what the dial has left of its limit", async (t) => {
  const { clock, outgoing, call, open } = world(t, [answer, answer]);
  const calling = call(1_000);
  await clock.pass(300);
  open();
  await calling;
  await call();
  assert.deepEqual(
    outgoing.map(({ timeoutMs }) => timeoutMs),
    [700, undefined],
  );
});

test("RpcClient.call() tries once more where the peer has not begun, and no oftener, and nothing else", async (t) => {
  const untouched = fails(new Untouched("it is closing"));
  const lost = fails(new RpcError("UNAVAILABLE", "the connection was lost during the call"));
  const { clock, outgoing, call, open, isCut } = world(t, [untouched, answer, untouched, untouched, lost, answer]);
  open();
  await call();
  assert.equal(outgoing.length, 2);
  await assert.rejects(call(), { message: "it is closing" });
  assert.equal(outgoing.length, 4);
  await assert.rejects(call(), { message: /was lost/ });
  assert.equal(outgoing.length, 5);
  assert.equal(isCut(), false);
  await settled();
  await clock.pass(IDLE_MS);
  assert.equal(isCut(), true, "no try holds the connection");
});

test("RpcClient.call() says what could not be called where it has no credentials, at the second try too", async (t) => {
  let tries = 0;
  const credentials = () => {
    if (tries++ > 0) throw new Error("our SVID has expired");
    return {};
  };
  const { outgoing, call, open } = world(t, [fails(new Untouched("it is closing"))], { credentials });
  open();
  const message = `Cannot call /networkservice.NetworkService/Request at ${target}: our SVID has expired`;
  for (const calls of [1, 1]) {
    await assert.rejects(call(), { code: "INTERNAL", message });
    assert.equal(outgoing.length, calls);
  }
});

test("RpcClient.call() takes no second message, also where the peer says that all is well", async (t) => {
  const twice: Behaviour = (reader) => {
    for (let sent = 0; sent < 2; sent += 1) reader.data(encodeFrame(new Uint8Array()));
    reader.ended(undefined, new Map());
  };
  const { call, open } = world(t, [twice]);
  open();
  await assert.rejects(call(), { code: "INTERNAL", message: /has more than one message/ });
});

test("RpcClient.call() takes no answer of more bytes than the client may read, whatever its method allows", async (t) => {
  const sends =
    (bytes: number): Behaviour =>
    (reader) => {
      reader.data(encodeFrame(Buffer.concat([Buffer.from([0x0a, bytes - 2]), Buffer.alloc(bytes - 2, "x")])));
      reader.ended(undefined, new Map());
    };
  const limits = { maxMessageBytes: 100 };
  const { call, open } = world(t, [sends(100), sends(101)], {
    limits,
    answerLimit: () => ({ bytes: 200, elements: 9 }),
  });
  open();
  assert.equal((await call()).response.id.length, 98);
  await assert.rejects(call(), { code: "RESOURCE_EXHAUSTED", message: /of 101 bytes: the limit is 100 bytes/ });
});
