import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { Fd } from "./fd.ts";
import { FdExchange } from "./fd-exchange.ts";

const never = new AbortController().signal;

/** An exchange, files that a peer passes, and the descriptors that are open. */
function setUp(t: TestContext) {
  const folder = mkdtempSync(join(tmpdir(), "exchange-"));
  const open = new Set<number>();
  Fd.trace = (what, fd) => void (what === "own" ? open.add(fd) : open.delete(fd));
  const exchange = new FdExchange();
  t.after(() => {
    exchange.close(new Error("over"));
    Fd.trace = undefined;
    rmSync(folder, { recursive: true });
  });
  const files = ["a", "b", "c"].map((name) => {
    const path = join(folder, name);
    writeFileSync(path, "");
    const fd = Fd.ofPath(path);
    const id = fd.id();
    fd.close();
    return { id, arrives: () => exchange.arrived(Fd.ofPath(path)), send: () => sendOf(path) };
  });
  const sendOf = (path: string) => {
    const fd = Fd.ofPath(path);
    try {
      exchange.send(fd);
    } finally {
      fd.close();
    }
  };
  const [a, b, c] = files;
  assert.ok(a && b && c);
  const receive = async ({ id }: typeof a) => (await exchange.receive(id, never)).close();
  return { exchange, open, a, b, c, receive };
}

test("FdExchange that holds too many lets go of what a call has received first", async (t) => {
  const { exchange, open, a, b, c, receive } = setUp(t);
  exchange.holdAtMost(2);
  a.arrives();
  b.arrives();
  await receive(b);
  c.arrives();
  assert.deepEqual([exchange.heldCount, exchange.droppedCount, open.size], [2, 1, 2]);
  await receive(a);
  await receive(c);
  exchange.close(new Error("over"));
  assert.equal(open.size, 0);
});

test("FdExchange.release() leaves what came again for a call that is still on its way, once, and nothing that was received", async (t) => {
  const { exchange, a, receive } = setUp(t);
  a.arrives();
  await receive(a);
  a.arrives();
  exchange.release(a.id);
  assert.equal(exchange.heldCount, 1, "the call that it came for is on its way");
  exchange.release(a.id);
  assert.equal(exchange.heldCount, 0);
  a.arrives();
  a.arrives();
  await receive(a);
  exchange.release(a.id);
  assert.equal(exchange.heldCount, 0, "it came for the call that has received it");
  exchange.close(new Error("over"));
});

test("FdExchange that is closed has nothing open, whatever was to be sent, lay here, or arrives later", async (t) => {
  const { exchange, open, a, b, c } = setUp(t);
  a.send();
  b.arrives();
  exchange.close(new Error("the peer has gone"));
  c.arrives();
  assert.deepEqual([open.size, exchange.heldCount], [0, 0]);
  assert.throws(() => a.send(), /the peer has gone/);
  assert.equal(open.size, 0);
  await assert.rejects(exchange.receive(b.id, never), /the peer has gone/);
});

test("FdExchange lets no call wait for a descriptor that the kernel may have thrown away", async (t) => {
  const { exchange, a } = setUp(t);
  const waiting = exchange.receive(a.id, never);
  exchange.lost(new Error("too many are open"));
  await assert.rejects(waiting, /too many are open/);
  assert.equal(exchange.droppedCount, 1);
});

test("FdExchange counts what lies here in the budget that it is given, and gives back whatever way a descriptor goes", async (t) => {
  const { exchange, open, a, b, c, receive } = setUp(t);
  const budget = budgetOf(2);
  exchange.holdAtMost(2, budget);
  for (const { arrives } of [a, b]) arrives();
  assert.equal(budget.left, 0);
  c.arrives();
  assert.deepEqual([budget.left, exchange.heldCount, open.size], [0, 2, 2], "the oldest went for it");
  await receive(c);
  exchange.release(c.id);
  assert.equal(budget.left, 1);
  const smaller = budgetOf(0);
  exchange.holdAtMost(8, smaller);
  assert.deepEqual([budget.left, exchange.heldCount, open.size], [2, 0, 0], "what the new one has no room for goes");
  a.arrives();
  assert.deepEqual([smaller.left, exchange.heldCount, open.size], [0, 0, 0]);
  exchange.holdAtMost(8, budget);
  a.arrives();
  exchange.close(new Error("over"));
  assert.equal(budget.left, 2);
});

test("FdExchange hands a descriptor to who waits for it also where it has no room for a copy", async (t) => {
  const { exchange, open, a } = setUp(t);
  exchange.holdAtMost(8, budgetOf(0));
  const waiting = exchange.receive(a.id, never);
  a.arrives();
  (await waiting).close();
  assert.equal(open.size, 0);
});

test("FdExchange is flooded by four times what may lie here, unless calls name what comes", async (t) => {
  const { exchange, a, b, receive } = setUp(t);
  exchange.holdAtMost(2);
  const flood = (count: number) => {
    for (let at = 0; at < count; at += 1) a.arrives();
    return exchange.isFlooded;
  };
  assert.equal(flood(8), false);
  exchange.expect(b.id);
  assert.equal(flood(1), true, "a call that names what never came is none");
  exchange.expect(a.id);
  assert.deepEqual([exchange.isFlooded, flood(8)], [false, false]);
  await receive(a);
  assert.deepEqual([flood(8), flood(1)], [false, true]);
  exchange.release(b.id);
  assert.equal(exchange.isFlooded, true, "what never came is not let go");
  exchange.release(a.id);
  assert.deepEqual([exchange.isFlooded, flood(8)], [false, false]);
});

function budgetOf(count: number) {
  const budget = {
    left: count,
    take(amount: number): boolean {
      if (amount > budget.left) return false;
      budget.left -= amount;
      return true;
    },
    give(amount: number): void {
      budget.left += amount;
    },
  };
  return budget;
}
