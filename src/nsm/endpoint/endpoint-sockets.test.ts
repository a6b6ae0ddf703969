import assert from "node:assert/strict";
import { test } from "node:test";
import { HandClock, PaperFd, PaperFds, settled } from "../testing/fakes.ts";
import { EndpointSockets } from "./endpoint-sockets.ts";

const url = "inode://8/12";

test("EndpointSockets.acquire() gives the same target to all who hold an endpoint, from one descriptor", async () => {
  const { sockets, fds, signal } = setUp();
  const [first, second] = await Promise.all([sockets.acquire(url, fds, signal), sockets.acquire(url, fds, signal)]);
  assert.equal(first.target, second.target);
  assert.match(first.target, /^unix:\/\/\/proc\/self\/fd\/\d+$/);
  assert.ok(first.isLocal);
  assert.equal(PaperFd.open, 1);
  assert.ok(fds.released.length > 0);
});

test("EndpointSocket.release() closes the descriptor when it was not held for long enough", async () => {
  const { clock, sockets, fds, signal } = setUp();
  const socket = await sockets.acquire(url, fds, signal);
  socket.release();
  socket.release();
  await clock.pass(900);
  const again = await sockets.acquire(url, undefined, signal);
  assert.equal(again.target, socket.target);
  await clock.pass(5_000);
  assert.equal(PaperFd.open, 1);
  again.release();
  await clock.pass(1_100);
  assert.deepEqual([PaperFd.open, sockets.heldCount], [0, 0]);
});

test("EndpointSockets.acquire() waits a bounded time for a descriptor that does not come", async () => {
  const { clock, sockets, fds, signal } = setUp();
  const waiting = assert.rejects(
    sockets.acquire("inode://8/13", fds, signal),
    /the socket inode:\/\/8\/13 did not arrive/,
  );
  await clock.pass(1_100);
  await waiting;
});

test("EndpointSockets.acquire() ends with its caller's reason when that leaves before the descriptor has come", async () => {
  const { clock, sockets, fds } = setUp();
  const caller = new AbortController();
  const reason = new Error("the caller has gone");
  const waiting = assert.rejects(sockets.acquire("inode://8/13", fds, caller.signal), reason);
  caller.abort(reason);
  await waiting;
  assert.equal(clock.timerCount, 0);
});

test("EndpointSockets.stop() closes what is held and what lingers, and forgets both", async () => {
  const { clock, sockets, fds, signal } = setUp();
  fds.sent.add("inode://8/13");
  await sockets.acquire(url, fds, signal);
  (await sockets.acquire("inode://8/13", fds, signal)).release();
  sockets.stop();
  assert.deepEqual([PaperFd.open, sockets.heldCount, clock.timerCount], [0, 0, 0]);
});

test("EndpointSockets.acquire() passes other URLs on as they are", async () => {
  const { sockets, signal } = setUp();
  const remote = await sockets.acquire("tcp://10.0.0.1:5001", undefined, signal);
  assert.deepEqual([remote.target, remote.isLocal], ["tcp://10.0.0.1:5001", false]);
  const local = await sockets.acquire("unix:///run/nse.sock", undefined, signal);
  assert.deepEqual([local.target, local.isLocal], ["unix:///run/nse.sock", true]);
  remote.release();
  await settled();
});

function setUp() {
  PaperFd.open = 0;
  const clock = new HandClock();
  const fds = new PaperFds();
  fds.sent.add(url);
  return { clock, fds, sockets: new EndpointSockets(clock, 1_000), signal: new AbortController().signal };
}
