// What a connection is kept for and when it ends, one event after the other, on a transport that does what the test says.
import assert from "node:assert/strict";
import { getEventListeners } from "node:events";
import { type TestContext, test } from "node:test";
import { HandClock, settled } from "../nsm/testing/fakes.ts";
import { silentLog } from "../telemetry/index.ts";
import { ConnectionPool } from "./client-pool.ts";
import type { PeerIdentity, TlsIdentity } from "./connection.ts";
import { defaultLimits } from "./rpc-limits.ts";
import { RpcError } from "./status.ts";
import type { ClientConnection, DialOptions, Transport } from "./transport.ts";

const IDLE_MS = 1_000;
const target = "unix:///a";

/** A connection that ends when it is cut, or a while after. */
class PaperConnection {
  readonly #closing = new AbortController();
  readonly #leaving = new AbortController();
  readonly closed = this.#closing.signal;
  readonly farewell = this.#leaving.signal;
  readonly remote = "paper";
  readonly peer: PeerIdentity | undefined;
  isSlow = false;
  cuts = 0;

  constructor(peer: PeerIdentity | undefined) {
    this.peer = peer;
  }

  cut(): void {
    this.cuts += 1;
    if (!this.isSlow) this.end();
  }

  end(): void {
    this.#closing.abort(new RpcError("UNAVAILABLE", "closed"));
  }

  leave(): void {
    this.#leaving.abort();
  }
}

function world(t: TestContext, peer?: PeerIdentity) {
  const clock = new HandClock();
  const dials: { options: DialOptions; open(): PaperConnection; fail(): void }[] = [];
  const identities = new Map<string, string>();
  const rotated = new Set<() => void>();
  const transport = {
    identify: (name: string) => identities.get(name) ?? name,
    dial(options: DialOptions) {
      const dialling = Promise.withResolvers<ClientConnection>();
      options.signal.addEventListener("abort", () => dialling.reject(options.signal.reason), { once: true });
      const open = () => {
        const connection = new PaperConnection(peer);
        dialling.resolve(connection as unknown as ClientConnection);
        return connection;
      };
      dials.push({ options, open, fail: () => dialling.reject(new RpcError("UNAVAILABLE", "no listener")) });
      return dialling.promise;
    },
  } as unknown as Transport;
  const tls = {
    onRotate(listener: () => void) {
      rotated.add(listener);
      return () => rotated.delete(listener);
    },
  } as unknown as TlsIdentity;
  const common = { transport, tls, log: silentLog, clock, dialTimeoutMs: 100, limits: defaultLimits };
  const pool = new ConnectionPool({ ...common, idleMs: IDLE_MS });
  const signals: AbortSignal[] = [];
  // Whatever has happened: no timer and no listener is left when the pool is closed.
  t.after(async () => {
    await pool.close();
    await settled();
    assert.deepEqual([clock.timerCount, rotated.size], [0, 0]);
    for (const signal of signals) assert.equal(getEventListeners(signal, "abort").length, 0);
  });
  const lease = (name = target, signal = new AbortController().signal) => {
    signals.push(signal);
    return pool.lease(name, signal);
  };
  return {
    ...{ clock, dials, identities, pool, lease },
    rotate() {
      for (const listener of [...rotated]) listener();
    },
    /** A lease of a connection that is dialled for it. */
    async connected() {
      const leasing = lease();
      const connection = dials.at(-1)?.open();
      assert.ok(connection);
      return { lease: await leasing, connection };
    },
  };
}

test("calls to one listener share a dial and a connection, by whatever name; it ends when it was idle for long enough", async (t) => {
  const { clock, dials, identities, lease } = world(t);
  identities.set("unix:///b", target);
  const both = [lease(), lease("unix:///b")];
  const connection = dials[0]?.open();
  const [first, second] = await Promise.all(both);
  assert.equal(dials.length, 1);
  assert.deepEqual([dials[0]?.options.timeoutMs, dials[0]?.options.target], [100, target]);
  first?.release();
  first?.release(); // no other call's
  await clock.pass(10 * IDLE_MS);
  assert.equal(connection?.cuts, 0);
  second?.release();
  await clock.pass(IDLE_MS - 100);
  const again = await lease();
  await clock.pass(10 * IDLE_MS);
  const beside = await lease();
  assert.deepEqual([connection?.cuts, dials.length], [0, 1]);
  beside.release();
  again.release();
  await clock.pass(IDLE_MS);
  assert.equal(connection?.closed.aborted, true);
  void lease().catch(() => {});
  assert.equal(dials.length, 2);
});

test("a dial that fails fails those who wait for it, and the next call dials again", async (t) => {
  const { dials, lease, connected } = world(t);
  const failed = [lease(), lease()];
  dials[0]?.fail();
  for (const one of failed) await assert.rejects(one, { code: "UNAVAILABLE", message: "no listener" });
  const { connection } = await connected();
  assert.deepEqual([dials.length, connection.cuts], [2, 0]);
});

test("a caller that leaves during the dial leaves it to others; one that has left before waits for nothing", async (t) => {
  const { clock, dials, lease } = world(t);
  const [caller, gone] = [new AbortController(), AbortSignal.abort(new Error("gone before"))];
  const leaving = assert.rejects(lease(target, caller.signal), /gone/);
  await assert.rejects(lease(target, gone), /gone before/);
  caller.abort(new Error("gone"));
  await leaving;
  const connection = dials[0]?.open();
  const { release } = await lease();
  await clock.pass(10 * IDLE_MS);
  assert.deepEqual([dials.length, connection?.cuts], [1, 0]);
  release();
});

test("a dial that no call waits for any more ends as idle as a connection does", async (t) => {
  const { clock, dials, lease } = world(t);
  const caller = new AbortController();
  const leaving = assert.rejects(lease(target, caller.signal));
  caller.abort(new Error("gone"));
  await leaving;
  await clock.pass(IDLE_MS);
  const connection = dials[0]?.open();
  await settled();
  assert.equal(connection?.cuts, 1);
});

test("a dial that its caller has left is given up with the pool, and its idle time with it", async (t) => {
  const { clock, pool, lease } = world(t);
  const caller = new AbortController();
  const leaving = assert.rejects(lease(target, caller.signal));
  caller.abort(new Error("gone"));
  await leaving;
  assert.equal(clock.timerCount, 1);
  await pool.close();
  await settled();
  assert.equal(clock.timerCount, 0);
});

for (const how of ["farewell", "rotation"] as const) {
  test(`after a ${how} calls under way continue, the next one dials, and the connection ends with its last call`, async (t) => {
    const { clock, dials, lease, connected, rotate } = world(t);
    const { lease: first, connection } = await connected();
    const second = await lease();
    if (how === "farewell") connection.leave();
    else rotate();
    void lease().catch(() => {});
    assert.equal(dials.length, 2);
    first.release();
    await clock.pass(10 * IDLE_MS);
    assert.equal(connection.cuts, 0);
    second.release();
    assert.equal(connection.cuts, 1);
    void lease().catch(() => {});
    assert.equal(dials.length, 2, "its end is not that of the next one");
  });

  test(`a ${how} ends an idle connection at once, with its timers`, async (t) => {
    const { clock, connected, rotate } = world(t);
    const { lease, connection } = await connected();
    lease.release();
    if (how === "farewell") connection.leave();
    else rotate();
    assert.deepEqual([connection.cuts, clock.timerCount], [1, 0]);
  });
}

test("a connection whose dial a rotation overtook carries those who waited for it, and no others", async (t) => {
  const { dials, lease, rotate } = world(t);
  const waiting = lease();
  rotate();
  void lease().catch(() => {});
  assert.equal(dials.length, 2);
  const connection = dials[0]?.open();
  const { release } = await waiting;
  await settled();
  assert.equal(connection?.cuts, 0, "a call is on it");
  release();
  assert.equal(connection?.cuts, 1);
});

for (const end of ["leave", "end"] as const) {
  test(`a connection that has ${end === "end" ? "ended" : "said farewell"} before it was kept is kept for no further call`, async (t) => {
    const { dials, lease } = world(t);
    const waiting = lease();
    dials[0]?.open()[end]();
    const { release } = await waiting;
    void lease().catch(() => {});
    assert.equal(dials.length, 2);
    release();
  });
}

test("a lost connection is forgotten: the next call dials, and the release of the former one ends nothing of it", async (t) => {
  const { clock, dials, connected } = world(t);
  const first = await connected();
  first.connection.end();
  const second = await connected();
  first.lease.release();
  await clock.pass(10 * IDLE_MS);
  assert.deepEqual([dials.length, second.connection.cuts], [2, 0]);
});

test("ConnectionPool.close() gives up dials, waits until every connection has ended, and takes no further call", async (t) => {
  const { clock, dials, pool, lease, connected } = world(t);
  const { lease: held, connection } = await connected();
  connection.isSlow = true;
  const dialling = assert.rejects(lease("unix:///other"), { code: "CANCELLED", message: "the client was closed" });
  let isClosed = false;
  const closing = pool.close().then(() => {
    isClosed = true;
  });
  await dialling;
  await settled();
  assert.deepEqual([isClosed, connection.cuts], [false, 1]);
  await assert.rejects(lease(), { code: "CANCELLED" });
  assert.equal(dials.length, 2);
  connection.end();
  await closing;
  held.release();
  assert.equal(clock.timerCount, 0, "no connection is kept idle any more");
});

test("a connection is renewed at half of the life of the peer's certificate, past that at half of what is left", async (t) => {
  const nowMs = new HandClock().now();
  const peer = {
    spiffeId: "spiffe://test/a",
    certificatePem: "a",
    notBeforeMs: nowMs - 1_000,
    notAfterMs: nowMs + 9_000,
  };
  const { clock, dials, lease, connected } = world(t, peer);
  const first = await connected();
  await clock.pass(3_900);
  await lease();
  assert.equal(dials.length, 1);
  await clock.pass(200);
  await connected();
  assert.deepEqual([dials.length, first.connection.cuts], [2, 0], "calls under way continue");
  await clock.pass(2_200);
  await lease();
  assert.equal(dials.length, 2);
  await clock.pass(300);
  await connected();
  assert.equal(dials.length, 3);
});
