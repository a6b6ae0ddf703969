import assert from "node:assert/strict";
import { readdirSync } from "node:fs";
import { after, test } from "node:test";
import { KernelSocket, Netns } from "../../src/kernel/index.ts";
import { needs } from "../needs.ts";

/** A UDP socket of IPv4, and its own address. */
const udp = { domain: 2, type: 2, protocol: 0 };
const here = Netns.current();
after(() => here.close());
const loopback = Buffer.from("02000000 7f000001 0000000000000000".replaceAll(" ", ""), "hex");

test("KernelSocket calls its newest listener with what is there to read, and who sent it", async (t) => {
  const receiver = KernelSocket.open(udp, here);
  const sender = KernelSocket.open(udp, here);
  t.after(() => [receiver, sender].forEach((socket) => void socket.close()));
  receiver.bind(loopback);
  sender.bind(loopback);
  receiver.onReadable(() => assert.fail("an earlier listener was called"));
  const readable = new Promise<void>((resolve) => receiver.onReadable(resolve));
  const slab = Buffer.alloc(2);
  assert.equal(receiver.receive(), undefined);
  sender.send(Buffer.from("abc"), receiver.address());
  await readable;
  const received = receiver.receiveFrom(slab);
  assert.deepEqual([received?.length, String(slab)], [3, "ab"]);
  assert.deepEqual(received?.from, sender.address());
  assert.equal(receiver.receiveFrom(slab), undefined);
});

test("KernelSocket.sendOffThread() stays with its socket though that is closed meanwhile", async () => {
  const before = readdirSync("/proc/self/fd").length;
  const receiver = KernelSocket.open(udp, here);
  const sender = KernelSocket.open(udp, here);
  receiver.bind(loopback);
  sender.connect(receiver.address());
  const sent = sender.sendOffThread(Buffer.from("late"));
  sender.close();
  const other = KernelSocket.open(udp, here); // takes the number that has just become free
  await sent;
  assert.equal(String(receiver.receive()), "late");
  await assert.rejects(other.sendOffThread(Buffer.alloc(16)), { name: "KernelError", code: "EDESTADDRREQ" });
  receiver.close();
  other.close();
  assert.equal(readdirSync("/proc/self/fd").length, before);
});

test("KernelSocket.open() opens it in a namespace, where it stays", (t) => {
  if (!needs(t, "root")) return;
  const netns = Netns.create();
  const socket = KernelSocket.open(udp, netns);
  // The loopback link of a new namespace is down, so this address cannot be reached from there.
  assert.throws(() => socket.connect(Buffer.from("020000357f0000010000000000000000", "hex")), { code: "ENETUNREACH" });
  socket.close();
  netns.close();
});
