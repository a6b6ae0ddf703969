import assert from "node:assert/strict";
import { test } from "node:test";
import { DialRefused, defaultLimits, PeerLimits } from "../../rpc/index.ts";
import { HandClock, PaperFd, PaperFds, settled } from "../testing/fakes.ts";
import { EndpointSockets } from "./endpoint-sockets.ts";

const url = "inode://8/12";
const owner = "spiffe://test/a";

test("EndpointSockets.acquire() gives the same target to all who hold an endpoint, from one descriptor", async () => {
  const { sockets, fds, search } = setUp();
  const [first, second] = await Promise.all([sockets.acquire(url, fds, search), sockets.acquire(url, fds, search)]);
  assert.equal(first.target, second.target);
  assert.match(first.target, /^unix:\/\/\/proc\/self\/fd\/\d+$/);
  assert.ok(first.isLocal);
  assert.equal(PaperFd.open, 1);
  assert.ok(fds.released.length > 0);
});

test("EndpointSocket.release() closes the descriptor when it was not held for long enough", async () => {
  const { clock, sockets, fds, search } = setUp();
  const socket = await sockets.acquire(url, fds, search);
  socket.release();
  socket.release();
  await clock.pass(900);
  const again = await sockets.acquire(url, undefined, search);
  assert.equal(again.target, socket.target);
  await clock.pass(5_000);
  assert.equal(PaperFd.open, 1);
  again.release();
  await clock.pass(1_100);
  assert.deepEqual([PaperFd.open, sockets.heldCount], [0, 0]);
});

test("EndpointSockets.acquire() waits a bounded time for a descriptor that does not come", async () => {
  const { clock, sockets, fds, search } = setUp();
  const waiting = assert.rejects(
    sockets.acquire("inode://8/13", fds, search),
    /the socket inode:\/\/8\/13 did not arrive/,
  );
  await clock.pass(1_100);
  await waiting;
});

test("EndpointSockets.acquire() ends with its caller's reason when that leaves before the descriptor has come", async () => {
  const { clock, sockets, fds } = setUp();
  const caller = new AbortController();
  const reason = new Error("the caller has gone");
  const waiting = assert.rejects(sockets.acquire("inode://8/13", fds, { owner, signal: caller.signal }), reason);
  caller.abort(reason);
  await waiting;
  assert.equal(clock.timerCount, 0);
});

test("EndpointSockets.stop() closes what is held and what lingers, and forgets both", async () => {
  const { clock, sockets, fds, search } = setUp();
  fds.sent.add("inode://8/13");
  await sockets.acquire(url, fds, search);
  (await sockets.acquire("inode://8/13", fds, search)).release();
  sockets.stop();
  assert.deepEqual([PaperFd.open, sockets.heldCount, clock.timerCount], [0, 0, 0]);
});

/** Shares in which each owner may have two; and which targets were left. */
function sharedSetUp() {
  const { clock, fds, search } = setUp();
  const limits = { ...defaultLimits, endpointSockets: { each: 2, others: 6, manager: 1 } };
  const refused: string[] = [];
  const owners = new PeerLimits({ limits, clock, onRefused: (kind, peer) => void refused.push(`${kind} ${peer}`) });
  const left: string[] = [];
  const sockets = new EndpointSockets(clock, 1_000, {
    each: limits.endpointSockets.each,
    add: (socket) => owners.addSocket(socket),
    remove: (socket) => owners.removeSocket(socket),
    leave: (target) => void left.push(target),
  });
  const acquire = (ino: number, whose = owner) => {
    fds.sent.add(`inode://8/${ino}`);
    return sockets.acquire(`inode://8/${ino}`, fds, { ...search, owner: whose });
  };
  return { clock, fds, sockets, acquire, left, refused };
}

test("EndpointSockets.acquire() closes the owner's oldest unused one for one more, and leaves what is connected to it before", async () => {
  const { clock, sockets, acquire, left, refused } = sharedSetUp();
  const first = await acquire(1);
  const second = await acquire(2);
  first.release();
  second.release();
  const third = await acquire(3);
  assert.deepEqual([left, PaperFd.open, sockets.heldCount], [[first.target], 2, 2]);
  const again = await acquire(1);
  assert.notEqual(again.target, first.target);
  assert.deepEqual([left.at(-1), PaperFd.open], [second.target, 2]);
  first.release();
  await clock.pass(5_000);
  assert.deepEqual([PaperFd.open, clock.timerCount, refused], [2, 0, []]);
  for (const socket of [third, again]) socket.release();
  await clock.pass(1_100);
  assert.deepEqual([PaperFd.open, sockets.heldCount, clock.timerCount], [0, 0, 0]);
});

test("EndpointSockets.acquire() refuses an owner whose sockets are all in use, and no other", async () => {
  const { sockets, fds, acquire, left, refused } = sharedSetUp();
  const held = [await acquire(1), await acquire(2)];
  await assert.rejects(acquire(3), (error) => {
    assert.ok(error instanceof DialRefused);
    assert.match(error.message, /^Cannot keep the socket inode:\/\/8\/3 .*spiffe:\/\/test\/a has as many/);
    return true;
  });
  assert.deepEqual([refused, PaperFd.open], [["endpoint-sockets spiffe://test/a"], 2]);
  assert.ok(held.every(({ target }) => !left.includes(target)));
  assert.equal(fds.received.filter(({ isOpen }) => isOpen).length, 2);
  await acquire(3, "spiffe://test/b");
  held[0]?.release();
  await acquire(4);
  assert.equal(left.at(-1), held[0]?.target);
  sockets.stop();
  assert.equal(PaperFd.open, 0);
});

const other = "spiffe://test/b";

test("EndpointSocket.release() takes a socket that another owner uses out of the share of who brought it", async () => {
  const { sockets, acquire } = sharedSetUp();
  const brought = [await acquire(1), await acquire(2)];
  const used = [await acquire(1, other), await acquire(2, other)];
  assert.deepEqual(
    used.map(({ target }) => target),
    brought.map(({ target }) => target),
  );
  for (const socket of brought) socket.release();
  for (const ino of [3, 4]) await acquire(ino);
  await assert.rejects(acquire(5, other), DialRefused, "who uses them has its share");
  for (const socket of used) socket.release();
  await acquire(5, other);
  sockets.stop();
  assert.equal(PaperFd.open, 0);
});

test("EndpointSockets.acquire() takes a socket that lingers out of the share of its last user", async () => {
  const { clock, sockets, acquire, left } = sharedSetUp();
  for (const ino of [1, 2]) (await acquire(ino)).release();
  const used = [await acquire(1, other), await acquire(2, other)];
  for (const ino of [3, 4]) (await acquire(ino)).release();
  await clock.pass(900);
  await assert.rejects(acquire(3, other), DialRefused);
  assert.deepEqual(
    used.filter(({ target }) => left.includes(target)),
    [],
  );
  for (const socket of used) socket.release();
  await clock.pass(1_100);
  assert.deepEqual([PaperFd.open, sockets.heldCount, clock.timerCount], [0, 0, 0]);
});

test("EndpointSocket.release() closes in the end what two owners have used in turn", async () => {
  const { clock, sockets, acquire } = sharedSetUp();
  for (const whose of [owner, other]) (await acquire(1, whose)).release();
  await clock.pass(1_100);
  assert.deepEqual([PaperFd.open, sockets.heldCount, clock.timerCount], [0, 0, 0]);
});

test("EndpointSockets.acquire() refuses an owner one more that another has brought, and leaves it to that one", async () => {
  const { sockets, acquire } = sharedSetUp();
  const theirs = await acquire(9, other);
  for (const ino of [1, 2]) await acquire(ino);
  await assert.rejects(acquire(9), DialRefused);
  assert.equal((await acquire(9, other)).target, theirs.target);
  sockets.stop();
});

test("EndpointSockets.acquire() counts a socket once for all, however many owners use it", async () => {
  const { sockets, acquire } = sharedSetUp();
  const shared = await Promise.all(Array.from({ length: 20 }, (_, nth) => acquire(1, `spiffe://test/${nth}`)));
  assert.equal(new Set(shared.map(({ target }) => target)).size, 1);
  for (const socket of shared.slice(0, 19)) socket.release();
  // Five more than the one that the last still uses: all together may have six.
  for (const ino of [2, 3, 4, 5, 6]) await acquire(ino, `spiffe://test/new-${ino}`);
  await assert.rejects(acquire(7, "spiffe://test/new-7"), DialRefused);
  shared.at(-1)?.release();
  await acquire(7, "spiffe://test/new-7");
  assert.equal(PaperFd.open, 6);
  sockets.stop();
});

test("EndpointSockets.acquire() keeps the socket that it acquires where its last user's charges end to make room", async () => {
  const { sockets, acquire, left } = sharedSetUp();
  const [lingering, unused] = [await acquire(1), await acquire(2)];
  for (const socket of [lingering, unused]) socket.release();
  for (const [ino, whose] of [
    [3, other],
    [4, "spiffe://test/c"],
    [5, "spiffe://test/d"],
  ] as const)
    await acquire(ino, whose);
  const again = await acquire(1, other);
  assert.deepEqual([again.target, left], [lingering.target, [unused.target]]);
  sockets.stop();
  assert.equal(PaperFd.open, 0);
});

test("EndpointSockets.acquire() passes other URLs on as they are", async () => {
  const { sockets, search } = setUp();
  const remote = await sockets.acquire("tcp://10.0.0.1:5001", undefined, search);
  assert.deepEqual([remote.target, remote.isLocal], ["tcp://10.0.0.1:5001", false]);
  const local = await sockets.acquire("unix:///run/nse.sock", undefined, search);
  assert.deepEqual([local.target, local.isLocal], ["unix:///run/nse.sock", true]);
  remote.release();
  await settled();
});

function setUp() {
  PaperFd.open = 0;
  const clock = new HandClock();
  const fds = new PaperFds();
  fds.sent.add(url);
  return {
    clock,
    fds,
    sockets: new EndpointSockets(clock, 1_000),
    search: { owner, signal: new AbortController().signal },
  };
}
