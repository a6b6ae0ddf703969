// A server's connection from its peer's first word to its end, one event after the other, without sockets.
import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { HandClock, settled } from "../nsm/testing/fakes.ts";
import { silentLog } from "../telemetry/index.ts";
import { type Budget, PeerLimits } from "./peer-limits.ts";
import { defaultLimits } from "./rpc-limits.ts";
import { ServedConnection } from "./served-connection.ts";
import { RpcError } from "./status.ts";
import type { ServerConnection, ServerStream } from "./transport.ts";

const LINGER_MS = 1_000;
const LIFE_MS = 60_000;

/** A call that ends when it is answered or refused. */
class PaperCall {
  readonly #closing = Promise.withResolvers<void>();
  readonly path = "/a.B/C";
  readonly metadata = new Map();
  readonly timeoutMs = undefined;
  readonly refusal = undefined;
  readonly answerMetadata = {};
  readonly closed = this.#closing.promise;
  status: string | undefined;

  read(): void {}

  end(error?: RpcError): void {
    this.status = error?.code ?? "OK";
    this.#closing.resolve();
  }
}

function world(t: TestContext, { isRenewable = true, isManager = false } = {}) {
  const clock = new HandClock();
  const [closing, leaving] = [new AbortController(), new AbortController()];
  const cuts: number[] = [];
  const budgets: Budget[] = [];
  const transport = {
    peer: {
      spiffeId: "spiffe://test/a",
      certificatePem: "a",
      notBeforeMs: clock.now() - 3_600_000,
      notAfterMs: clock.now() + LIFE_MS,
    },
    ...{ closed: closing.signal, farewell: leaving.signal, remote: "paper", shown: undefined },
    fds: { holdAtMost: (_limit: number, budget: Budget) => void budgets.push(budget) },
    sayFarewell: () => leaving.abort(),
    cut() {
      cuts.push(clock.now());
      closing.abort(new RpcError("UNAVAILABLE", "cut"));
    },
  } as unknown as ServerConnection;
  const [calls, descriptors] = [
    { each: 2, others: 4, manager: 0 },
    { each: 1, others: 4, manager: 0 },
  ];
  const limits = { ...defaultLimits, calls, descriptors };
  const owners = new PeerLimits({ limits, clock, isManager: () => isManager });
  const handlers = new Map([
    [
      "/a.B/C",
      { path: "/a.B/C", limit: { bytes: 100, elements: 100 }, kind: "unary", run: () => new Promise(() => {}) },
    ],
  ]);
  const context = { handlers, limits, owners, clock, log: silentLog } as unknown as ConstructorParameters<
    typeof ServedConnection
  >[1];
  const served = new ServedConnection(transport, context, () => isRenewable);
  assert.ok(owners.add(served));
  t.after(async () => {
    transport.cut();
    await served.closed;
    assert.deepEqual([clock.timerCount, owners.connectionCount], [0, 0], "timers and connections after the end");
  });
  const call = () => {
    const made = new PaperCall();
    served.serve(made as unknown as ServerStream);
    return made;
  };
  return {
    clock,
    served,
    owners,
    budgets,
    call,
    cuts,
    leave: () => leaving.abort(),
    hasLeft: () => leaving.signal.aborted,
  };
}

test("a connection is idle between its calls, and its owner has no more calls than it may", async (t) => {
  const { served, call } = world(t);
  assert.equal(served.isIdle, true);
  const [first, second, third] = [call(), call(), call()];
  assert.equal(served.isIdle, false);
  assert.deepEqual([first?.status, third?.status], [undefined, "RESOURCE_EXHAUSTED"]);
  await settled();
  assert.equal(served.calls.size, 2, "a refused call is over");
  const fourth = call();
  assert.equal(fourth.status, "RESOURCE_EXHAUSTED", "a refused call has given nothing back");
  first?.end();
  await settled();
  const fifth = call();
  assert.equal(fifth.status, undefined);
  for (const one of [second, fifth]) one?.end();
  await settled();
  assert.equal(served.isIdle, true);
});

test("a connection ends that begins call after call though they are refused, and not for those that were over", async (t) => {
  const { call, cuts } = world(t);
  for (let at = 0; at < 2; at += 1) call();
  for (let at = 0; at < 64; at += 1) call();
  await settled();
  for (let at = 0; at < 64; at += 1) call();
  assert.deepEqual(cuts, []);
  call();
  assert.equal(cuts.length, 1);
});

test("the manager's connection stays, however many of its calls are refused", async (t) => {
  const { call, cuts } = world(t, { isManager: true });
  const calls = Array.from({ length: 70 }, call);
  assert.ok(calls.slice(-66).every(({ status }) => status === "RESOURCE_EXHAUSTED"));
  assert.deepEqual(cuts, []);
  for (const one of calls) one.end();
});

test("a connection is idle since its last call has ended, and its descriptors are its owner's", async (t) => {
  const { clock, served, owners, budgets, call } = world(t);
  const startedMs = clock.now();
  assert.equal(served.idleSinceMs, startedMs);
  const under = call();
  await clock.pass(500);
  under.end();
  await settled();
  assert.equal(served.idleSinceMs, startedMs + 500);
  assert.deepEqual(
    budgets.map((budget) => budget.take(1)),
    [true],
  );
  assert.deepEqual([owners.descriptorsOf(served.owner).take(1), owners.descriptorsOf("").take(1)], [false, true]);
});

test("after the farewell a connection lives as long as its calls and a while longer", async (t) => {
  const { clock, served, call, cuts } = world(t);
  const [first, second] = [call(), call()];
  served.sayFarewell();
  first?.end();
  await clock.pass(10 * LINGER_MS);
  assert.deepEqual(cuts, []);
  second?.end();
  await settled();
  const endedMs = clock.now();
  await clock.pass(LINGER_MS / 2);
  call().end(); // a late one, on its way before the peer heard
  await clock.pass(LINGER_MS);
  assert.deepEqual(cuts, [endedMs + LINGER_MS]);
});

test("an idle connection whose peer says farewell ends a while later, one without a farewell stays", async (t) => {
  const { clock, call, cuts, leave } = world(t);
  call().end();
  await clock.pass(10 * LINGER_MS);
  assert.deepEqual(cuts, []);
  leave();
  await clock.pass(LINGER_MS);
  assert.equal(cuts.length, 1);
});

test("a connection says farewell when its peer's certificate ends, and keeps its calls", async (t) => {
  const { clock, call, cuts, hasLeft } = world(t);
  const under = call();
  await clock.pass(LIFE_MS - 1);
  assert.equal(hasLeft(), false);
  await clock.pass(1);
  assert.equal(hasLeft(), true);
  await clock.pass(LIFE_MS);
  assert.deepEqual([cuts, under.status], [[], undefined]);
});

for (const isRenewable of [true, false]) {
  test(`a connection whose peer ${isRenewable ? "may be sent away" : "was sent away before"} is ${isRenewable ? "" : "not "}renewed`, (t) => {
    const { served, hasLeft } = world(t, { isRenewable });
    assert.equal(served.connection.renew(), isRenewable);
    assert.equal(hasLeft(), isRenewable);
  });
}
