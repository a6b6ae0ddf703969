import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { setImmediate } from "node:timers/promises";
import { until, within } from "../../test/scenes/until.ts";
import { systemClock } from "../async/index.ts";
import { MonitorConnection } from "../gen/connection_pb.ts";
import { NetworkService } from "../gen/networkservice_pb.ts";
import { HandClock } from "../nsm/testing/fakes.ts";
import { silentLog } from "../telemetry/index.ts";
import { RpcClient } from "./client.ts";
import type { Connection } from "./connection.ts";
import type { Admitted } from "./decode-queue.ts";
import { encodeFrame } from "./frame.ts";
import { type RpcHandler, streamHandler, unaryHandler } from "./handler.ts";
import type { Undecoded } from "./held-requests.ts";
import { type Budget, PeerLimits } from "./peer-limits.ts";
import { defaultLimits } from "./rpc-limits.ts";
import { type ServeOptions, serveRpc } from "./server.ts";
import { serveCall } from "./server-call.ts";
import { RpcError } from "./status.ts";
import type { ServerStream, StreamReader } from "./transport.ts";

const { request: Request } = NetworkService.method;

async function serve(t: TestContext, options: Partial<ServeOptions>) {
  const folder = mkdtempSync(join(tmpdir(), "rpc-"));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const url = `unix://${folder}/test.sock`;
  const server = await serveRpc({ url, handlers: [], log: silentLog, clock: systemClock, ...options });
  t.after(() => server.stop(0));
  const client = new RpcClient({ log: silentLog, clock: systemClock, dialTimeoutMs: 10_000, idleMs: 60_000 });
  t.after(() => client.close());
  return { url, client };
}

test("serveRpc() holds a request against its peer only until it is whole, not until it is answered", async (t) => {
  const gate = Promise.withResolvers<void>();
  let running = Promise.withResolvers<void>();
  const handler = unaryHandler(Request, async ({ connection }) => {
    running.resolve();
    await gate.promise;
    return { id: String(connection?.id.length) };
  });
  const { url, client } = await serve(t, { handlers: [handler], limits: { maxMessageBytes: 1000 } });
  const calls: Promise<{ readonly response: { readonly id: string } }>[] = [];
  // Three times what may be half received at once on one connection.
  for (let count = 0; count < 12; count += 1) {
    running = Promise.withResolvers();
    const call = client.call(url, Request, { connection: { id: "x".repeat(900) } });
    calls.push(call);
    await Promise.race([running.promise, call]);
  }
  gate.resolve();
  const answers = await Promise.all(calls);
  assert.ok(answers.every(({ response }) => response.id === "900"));
});

test("serveRpc() counts answers for the peer that does not read them", async (t) => {
  const limits = { ...defaultLimits, answerBytes: { each: 100, others: 400, manager: 0 } };
  const owners = new PeerLimits({ limits, clock: systemClock });
  const { url, client } = await serve(t, { handlers: [unaryHandler(Request, async () => answer)], owners });
  const [unread, unreadElsewhere] = [owners.answersOf(""), owners.answersOf("another")];
  assert.deepEqual([unread.take(90), unreadElsewhere.take(90)], [true, true]);
  await assert.rejects(client.call(url, Request, {}), { code: "RESOURCE_EXHAUSTED", message: /read those/ });
  unread.give(90);
  assert.deepEqual((await client.call(url, Request, {})).response.id, answer.id);
});

test("serveRpc() keeps no timer of a call that has been answered", async (t) => {
  const clock = new HandClock();
  let during = 0;
  const handler = unaryHandler(Request, async () => {
    during = clock.timerCount;
    return {};
  });
  const { url, client } = await serve(t, { handlers: [handler], clock });
  await client.call(url, Request, {}, { timeoutMs: 10_000 });
  assert.ok(during > 0, "the deadline of the call had no timer");
  await until("the answered call has no timer any more", () => clock.timerCount === 0);
});

function byteBudget(bytes: number): Budget {
  let left = bytes;
  return {
    take(amount) {
      if (amount > left) return false;
      left -= amount;
      return true;
    },
    give(amount) {
      left += amount;
    },
  };
}

const admitted: Admitted = { heldBytes: 0, release: () => {} };

/** One call on a stream of paper, of a peer that may send 100 bytes at once. */
interface PaperFacts {
  readonly own?: RpcError;
  readonly ours?: RpcError;
  readonly answers?: Budget;
  readonly left?: Promise<void>;
  readonly handler?: RpcHandler;
  readonly admit?: (request: Undecoded) => Promise<Admitted>;
}

function paperCall(facts: PaperFacts = {}) {
  const { admit = () => Promise.resolve(admitted), answers = byteBudget(100) } = facts;
  const [closed, answer] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
  const seen: string[] = [];
  const budget = byteBudget(100);
  const slow = unaryHandler(Request, async (_, { heldBytes }) => {
    seen.push("run");
    if (heldBytes) seen.push(`${heldBytes} held`);
    await answer.promise;
    return {};
  });
  const { handler = slow } = facts;
  const reading = Promise.withResolvers<StreamReader>();
  const stream: ServerStream = {
    ...{ path: handler.path, metadata: new Map(), timeoutMs: undefined, answerMetadata: {} },
    ...{ refusal: facts.own, closed: closed.promise, read: reading.resolve },
    async write() {
      seen.push("write");
      await facts.left;
    },
    end: (error) => void seen.push(`end with ${error?.code ?? "OK"}`),
    refuse: () => void seen.push("refuse"),
  };
  const limits = { connection: {} as Connection, maxMessageBytes: 1000, budget, answers, admit };
  const tools = { clock: new HandClock(), log: silentLog };
  const call = serveCall(stream, { ...limits, ...tools, handlers: new Map([[handler.path, handler]]) }, facts.ours);
  return { call, seen, budget, reading: reading.promise, close: closed.resolve, answer: answer.resolve };
}

const whole = encodeFrame(new Uint8Array(0));

test("serveCall() gives back what a request held once, however its stream ends after that", async () => {
  const { call, budget, reading, close, seen } = paperCall();
  const reader = await reading;
  reader.data(whole);
  assert.equal(budget.take(96), false);
  reader.ended();
  await setImmediate();
  assert.deepEqual(seen, ["run"]);
  close();
  await call.done;
  await setImmediate();
  assert.deepEqual([budget.take(100), budget.take(1)], [true, false]);
});

test("serveCall() counts a request as long as it waits to be decoded, and gives it back with a caller that goes", async () => {
  const turn = Promise.withResolvers<Admitted>();
  const waiting = [paperCall({ admit: () => turn.promise }), paperCall({ admit: () => new Promise(() => {}) })];
  for (const { reading } of waiting) {
    const reader = await reading;
    reader.data(whole);
    reader.ended();
  }
  await setImmediate();
  const [first, second] = waiting;
  assert.deepEqual(
    waiting.map(({ budget, seen }) => [budget.take(96), seen]),
    [
      [false, []],
      [false, []],
    ],
  );
  turn.resolve(admitted);
  second?.close();
  await setImmediate();
  assert.deepEqual(
    waiting.map(({ budget }) => budget.take(100)),
    [true, true],
  );
  assert.deepEqual([first?.seen, second?.seen], [["run"], []]);
});

test("serveCall() holds a decoded request until its handler is done, though the stream has ended before", async () => {
  let releases = 0;
  const release = () => {
    releases += 1;
  };
  const requested: Undecoded[] = [];
  const admit = async (request: Undecoded) => {
    requested.push(request);
    return { heldBytes: 7, release };
  };
  const { call, seen, reading, close, answer } = paperCall({ admit });
  const reader = await reading;
  reader.data(encodeFrame(Buffer.from("0a00", "hex")));
  reader.ended();
  await setImmediate();
  close();
  await call.done;
  await setImmediate();
  assert.deepEqual([requested, releases, seen], [[{ elements: 1, bytes: 2 }], 0, ["run", "7 held"]]);
  answer();
  await setImmediate();
  assert.equal(releases, 1);
});

test("serveCall() holds nothing of a stream whose call is over when its request is admitted", async () => {
  let releases = 0;
  const turn = Promise.withResolvers<Admitted>();
  const handler = streamHandler(MonitorConnection.method.monitorConnections, async function* () {
    yield {};
  });
  const { call, reading, close } = paperCall({ admit: () => turn.promise, handler });
  const reader = await reading;
  reader.data(whole);
  reader.ended();
  await setImmediate();
  close();
  await call.done;
  await setImmediate();
  turn.resolve({ heldBytes: 7, release: () => void releases++ });
  await setImmediate();
  assert.equal(releases, 1);
});

/** Of 42 bytes each. */
const answer = { id: "x".repeat(40) };
const answering: readonly RpcHandler[] = [
  unaryHandler(Request, async () => answer),
  streamHandler(MonitorConnection.method.monitorConnections, async function* () {
    yield { connections: { x: { id: "x".repeat(33) } } };
  }),
];

for (const handler of answering) {
  test(`serveCall() counts an answer until it has left, and ends a call for whose answer no room is left: ${handler.kind}`, async () => {
    const [answers, left] = [byteBudget(100), Promise.withResolvers<void>()];
    const calls = [1, 2, 3].map(() => paperCall({ answers, handler, left: left.promise }));
    for (const { reading } of calls) {
      const reader = await reading;
      reader.data(whole);
      reader.ended();
    }
    await setImmediate();
    const seen = () => calls.map(({ seen: each }) => each.join());
    assert.deepEqual(seen(), ["write", "write", "end with RESOURCE_EXHAUSTED"]);
    assert.equal(answers.take(17), false);
    left.resolve();
    await setImmediate();
    assert.deepEqual(seen().slice(0, 2), ["write,end with OK", "write,end with OK"]);
    assert.equal(answers.take(100), true);
  });
}

test("serveCall() runs no handler for a request with half of another one behind it", async () => {
  const { reading, seen } = paperCall();
  const reader = await reading;
  reader.data(Buffer.concat([whole, whole.subarray(0, 2)]));
  reader.ended();
  await setImmediate();
  assert.deepEqual(seen, ["end with INTERNAL"]);
});

test("serveCall() runs no handler for a call that has been ended by then", async () => {
  const { call, reading, seen } = paperCall();
  const reader = await reading;
  reader.data(whole);
  reader.ended();
  call.end(new RpcError("UNAVAILABLE", "the server is stopping"));
  await setImmediate();
  assert.deepEqual(seen, ["end with UNAVAILABLE"]);
});

test("serveCall() refuses more bytes than the server takes, though the method takes more, and holds none of them", async () => {
  const { budget, reading, seen } = paperCall();
  const reader = await reading;
  reader.data(encodeFrame(new Uint8Array(1001)).subarray(0, 5));
  await setImmediate();
  assert.deepEqual([seen, budget.take(100)], [["end with RESOURCE_EXHAUSTED"], true]);
});

test("serveCall() leaves a stream's handler that is stuck once the call is over", async () => {
  const left = Promise.withResolvers<string>();
  const messages = {
    next: () => new Promise<never>(() => {}),
    async return() {
      left.resolve("left");
      return { done: true, value: undefined } as const;
    },
  };
  const run = () => ({ [Symbol.asyncIterator]: () => messages });
  const { call, reading } = paperCall({ handler: { ...unaryHandler(Request, async () => ({})), kind: "stream", run } });
  const reader = await reading;
  reader.data(whole);
  reader.ended();
  await setImmediate();
  call.end(new RpcError("UNAVAILABLE", "the server is stopping"));
  assert.equal(await within("the handler is left", left.promise), "left");
});

test("serveCall() answers nothing more once the call has been ended", async () => {
  const { call, reading, seen, answer } = paperCall();
  const reader = await reading;
  reader.data(whole);
  reader.ended();
  await setImmediate();
  call.end(new RpcError("UNAVAILABLE", "the server is stopping"));
  answer();
  await setImmediate();
  assert.deepEqual(seen, ["run", "end with UNAVAILABLE"]);
});

test("serveCall() says what is wrong with a call rather than that there are too many", () => {
  const own = new RpcError("INTERNAL", "want POST");
  const { seen } = paperCall({ own, ours: new RpcError("RESOURCE_EXHAUSTED", "too many") });
  assert.deepEqual(seen, ["end with INTERNAL"]);
});
