// What a connection is kept for and when it ends, one event after the other, on a transport that does what the test says.
import assert from "node:assert/strict";
import { getEventListeners } from "node:events";
import { type TestContext, test } from "node:test";
import { within } from "../../test/scenes/until.ts";
import { HandClock, settled } from "../nsm/testing/fakes.ts";
import { silentLog } from "../telemetry/index.ts";
import { ConnectionPool } from "./client-pool.ts";
import type { PeerIdentity, TlsIdentity } from "./connection.ts";
import { type Budget, PeerLimits } from "./peer-limits.ts";
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
  /** What may be held of the descriptors that come with it. */
  budgets: Budget[] = [];
  readonly fds = { holdAtMost: (_limit: number, budget: Budget) => void this.budgets.push(budget) };
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

interface WorldOptions {
  readonly peer?: PeerIdentity;
  readonly checkPeer?: (target: string) => void;
  readonly owners?: PeerLimits;
}

function world(t: TestContext, { peer, ...options }: WorldOptions = {}) {
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
  const pool = new ConnectionPool({ ...common, idleMs: IDLE_MS, ...options });
  const signals: AbortSignal[] = [];
  // Whatever has happened: no timer and no listener is left when the pool is closed.
  t.after(async () => {
    await within("the pool has closed", pool.close());
    await settled();
    assert.deepEqual([clock.timerCount, rotated.size], [0, 0]);
    for (const signal of signals) assert.equal(getEventListeners(signal, "abort").length, 0);
  });
  const lease = (name = target, signal = new AbortController().signal, owner?: string) => {
    signals.push(signal);
    return pool.lease(name, signal, owner);
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

test("leave() gives no further call to what is kept to a target, by whatever name; calls under way continue", async (t) => {
  const { dials, identities, pool, lease, connected } = world(t);
  const { lease: first, connection } = await connected();
  identities.set("unix:///other-name", target);
  pool.leave("unix:///never-dialled");
  pool.leave("unix:///other-name");
  assert.equal(connection.cuts, 0);
  const again = lease();
  const second = dials[1]?.open();
  (await again).release();
  first.release();
  assert.deepEqual([connection.cuts, dials.length], [1, 2]);
  pool.leave(target);
  assert.equal(second?.cuts, 1);
});

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
  const beside = lease();
  assert.deepEqual([connection?.cuts, dials.length], [0, 1]);
  (await beside).release();
  again.release();
  await clock.pass(IDLE_MS);
  assert.equal(connection?.closed.aborted, true);
  void lease().catch(() => {});
  assert.equal(dials.length, 2);
});

test("so many idle connections are kept, and for a further one that ends which was used longest ago", async (t) => {
  const { dials, lease } = world(t);
  const made: PaperConnection[] = [];
  for (let nth = 0; nth < 128; nth += 1) {
    const leasing = lease(`unix:///${nth}`);
    const connection = dials.at(-1)?.open();
    assert.ok(connection);
    made.push(connection);
    (await leasing).release();
  }
  (await lease("unix:///0")).release();
  const inUse = lease("unix:///used");
  dials.at(-1)?.open();
  await inUse;
  assert.ok(made.every(({ cuts }) => cuts === 0));
  const more = lease("unix:///more");
  dials.at(-1)?.open();
  (await more).release();
  assert.deepEqual(
    made.flatMap(({ cuts }, nth) => (cuts > 0 ? [nth] : [])),
    [1],
  );
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
  await within("the caller that has left before", assert.rejects(lease(target, gone), /gone before/));
  caller.abort(new Error("gone"));
  await leaving;
  const connection = dials[0]?.open();
  const { release } = await lease();
  await clock.pass(10 * IDLE_MS);
  assert.deepEqual([dials.length, connection?.cuts], [1, 0]);
  release();
});

test("a dial that no call waits for any more is given up when it was idle for as long as a connection may be", async (t) => {
  const { clock, dials, lease } = world(t);
  const caller = new AbortController();
  const leaving = assert.rejects(lease(target, caller.signal));
  caller.abort(new Error("gone"));
  await leaving;
  await clock.pass(IDLE_MS);
  assert.equal(dials[0]?.options.signal.aborted, true);
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
  const { clock, dials, lease, connected } = world(t, { peer });
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

test("a peer that is not wanted at a target carries no call there, also when another name has led to it, and is dialled again", async (t) => {
  const unwanted = new Set<string>();
  const { dials, identities, lease, connected } = world(t, {
    checkPeer(name) {
      if (unwanted.has(name)) throw new Error("evil answers");
    },
  });
  identities.set("unix:///b", target);
  const first = await connected();
  unwanted.add("unix:///b");
  await assert.rejects(lease("unix:///b"), {
    code: "UNAVAILABLE",
    message: "Cannot connect to unix:///b: evil answers",
  });
  assert.equal(first.connection.cuts, 0, "calls by its own name continue");
  first.lease.release();
  assert.equal(first.connection.cuts, 1);
  unwanted.clear();
  const again = lease("unix:///b");
  dials.at(-1)?.open();
  (await again).release();
  assert.equal(dials.length, 2);
});

test("descriptors that a peer passes count as its own on dialled connections too", async (t) => {
  const limits = { ...defaultLimits, descriptors: { each: 1, others: 8, manager: 0 } };
  const owners = new PeerLimits({ limits, clock: new HandClock() });
  const nowMs = new HandClock().now();
  const peer = { spiffeId: "spiffe://test/a", certificatePem: "a", notBeforeMs: nowMs, notAfterMs: nowMs + 9_000 };
  const [named, unnamed] = [world(t, { peer, owners }), world(t, { owners })];
  const budgetsOf = async ({ connected }: typeof named) => {
    const { lease, connection } = await connected();
    lease.release();
    return connection.budgets;
  };
  assert.deepEqual(
    (await budgetsOf(named)).map((budget) => budget.take(1)),
    [true],
  );
  const ofPeer = owners.descriptorsOf(peer.spiffeId);
  assert.deepEqual([ofPeer.take(1), (await budgetsOf(unnamed)).map((budget) => budget.take(1))], [false, [true]]);
});

const MANAGER = "manager";

/** A pool whose dials are in shares: two of one owner, four of all but the manager. */
function shared(t: TestContext) {
  const refused: string[] = [];
  const limits = { ...defaultLimits, dials: { each: 2, others: 4, manager: 1 } };
  const onRefused = (kind: string, owner: string) => void refused.push(`${kind} ${owner}`);
  const owners = new PeerLimits({ limits, clock: new HandClock(), isManager: (owner) => owner === MANAGER, onRefused });
  const made = world(t, { owners });
  const dialsOf = () => made.dials.map(({ options }) => options.target);
  /** A call that waits for its dial until the test ends. */
  const hang = (owner: string, name: string, caller = new AbortController()) => {
    made.lease(name, caller.signal, owner).catch(() => {});
    return caller;
  };
  const open = async (owner: string, name: string) => {
    const leasing = made.lease(name, undefined, owner);
    const connection = made.dials.at(-1)?.open();
    assert.ok(connection);
    return { lease: await leasing, connection };
  };
  return { ...made, refused, dialsOf, hang, open };
}

test("who has as many dials as it may have waits for none more, and another one's dial begins at once", async (t) => {
  const { lease, refused, dialsOf, hang } = shared(t);
  hang("evil", "unix:///1");
  hang("evil", "unix:///2");
  await assert.rejects(lease("unix:///3", undefined, "evil"), {
    code: "RESOURCE_EXHAUSTED",
    message: /^Cannot connect to unix:\/\/\/3: evil has as many connections to endpoints as it may/,
  });
  assert.deepEqual(refused, ["dials evil"]);
  hang("pod", "unix:///4");
  hang(MANAGER, "unix:///5");
  assert.deepEqual(dialsOf(), ["unix:///1", "unix:///2", "unix:///4", "unix:///5"]);
  void lease("unix:///1", undefined, "pod").catch(() => {}); // what is dialled already costs no one else
  void lease("unix:///nsmgr").catch(() => {}); // in no share
  assert.deepEqual([dialsOf().length, refused.length], [5, 1]);
});

test("for a further dial of an owner its own idle connection ends, and a dial that none waits for is given up", async (t) => {
  const { dials, dialsOf, hang, open } = shared(t);
  const { lease, connection } = await open("evil", "unix:///1");
  const caller = hang("evil", "unix:///2");
  lease.release();
  hang("evil", "unix:///3");
  assert.deepEqual([connection.cuts, dialsOf().length], [1, 3]);
  caller.abort(new Error("gone"));
  await settled();
  hang("evil", "unix:///4");
  const given = dials.map(({ options }) => options.signal.aborted);
  assert.deepEqual(given, [true, true, false, false], "what is over cannot be dialled any more either");
});

test("where all have as many as they may, an idle connection of the owner that has most ends for the dial of one that has none", async (t) => {
  const { dialsOf, refused, hang, open } = shared(t);
  const many = [await open("evil", "unix:///1"), await open("evil", "unix:///2")];
  const one = await open("other", "unix:///3");
  const late = await open("third", "unix:///4");
  for (const { lease } of [one, late, ...many]) lease.release();
  hang("pod", "unix:///5");
  const cuts = [...many, one, late].map(({ connection }) => connection.cuts);
  assert.deepEqual([cuts, dialsOf().length, refused], [[1, 0, 0, 0], 5, []]);
});

test("a dial that fails, and a connection that ends, make room for another", async (t) => {
  const { dials, dialsOf, hang, open } = shared(t);
  const { connection } = await open("evil", "unix:///1");
  hang("evil", "unix:///2");
  dials.at(-1)?.fail();
  connection.end();
  await settled();
  hang("evil", "unix:///3");
  hang("evil", "unix:///4");
  assert.equal(dialsOf().length, 4);
});
