import { endianness } from "node:os";
import { type Clock, messageOf, startDeadline, systemClock } from "../async/index.ts";
import { Fd } from "./fd.ts";
import { call } from "./native.ts";
import { UnixStream } from "./unix-stream.ts";

const AF_UNIX = 1;
const SOCK_STREAM_NONBLOCK_CLOEXEC = 1 | 0o4000 | 0o2000000;
const LIMIT_MS = 2_000;

/**
 * Passes a descriptor through a pair of sockets and back into this process, which takes every part that we borrow from the
 * Node binary: libc calls, structures laid out by hand, readiness from libuv's loop. For the start, before anything relies
 * on them.
 * @throws {Error} that says what this machine or this Node lacks.
 */
export async function selfTest(clock: Clock = systemClock): Promise<void> {
  try {
    if (endianness() !== "LE") throw new Error("kernel structures are laid out for little-endian machines");
    await passDescriptor(clock);
  } catch (error) {
    const hint = "want Node 24 on 64-bit Linux, with its own libuv, and a file descriptor limit that is not used up";
    throw new Error(`Cannot pass descriptors on this machine: ${messageOf(error)}; ${hint}`, { cause: error });
  }
}

async function passDescriptor(clock: Clock): Promise<void> {
  const deadline = startDeadline(clock, LIMIT_MS, { what: "a descriptor on its way through a socket pair" });
  const file = Fd.ofPath("/dev/null");
  const opened = [];
  try {
    const [left, right] = openPair();
    opened.push(left, right);
    right.resume();
    left.fds.send(file);
    left.write("x");
    const received = await right.fds.receive(file.id(), deadline.signal);
    received.close();
  } finally {
    for (const stream of opened) stream.destroy();
    file.close();
    deadline.end();
  }
}

function openPair(): readonly [UnixStream, UnixStream] {
  const numbers = Buffer.alloc(8);
  call("open a pair of sockets", "socketpair", AF_UNIX, SOCK_STREAM_NONBLOCK_CLOEXEC, 0, numbers);
  const [left, right] = [Fd.own(numbers.readInt32LE(0)), Fd.own(numbers.readInt32LE(4))];
  return [new UnixStream(left), new UnixStream(right)];
}
