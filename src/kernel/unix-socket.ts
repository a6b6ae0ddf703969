import { chmodSync, lstatSync, rmSync } from "node:fs";
import { guarded, systemClock } from "../async/index.ts";
import { Errno } from "./errno.ts";
import { KernelError } from "./error.ts";
import { Fd } from "./fd.ts";
import { call, openPoll, POLL_READABLE, type Poll, tryCall } from "./native.ts";
import { UnixStream } from "./unix-stream.ts";

const AF_UNIX = 1;
const SOCK_STREAM = 1;
const SOCK_NONBLOCK = 0o4000;
const SOCK_CLOEXEC = 0o2000000;
/** sizeof sun_path, include/uapi/linux/un.h; the final NUL counts. */
const SUN_PATH_BYTES = 108;
const BACKLOG = 511;
const ACCEPTS_PER_TURN = 32;
/** How long a listener rests when descriptors or memory have run out; meanwhile the backlog keeps the callers. */
const REST_MS = 100;

interface ListenUnixOptions {
  /** Permissions of the socket file; no peer can connect before they are set. */
  readonly mode: number;
  /** Each stream is the receiver's to close. */
  onStream(stream: UnixStream): void;
  /** A connection could not be taken (EMFILE, ENOMEM); it is tried again soon. */
  onError(error: KernelError): void;
}

/** A listening unix socket. */
interface UnixListener {
  readonly path: string;
  /** Stops listening and removes the socket file, if it is still ours. Streams that were accepted continue. */
  close(): void;
}

/**
 * Connects to a unix socket. It never waits: the kernel connects at once or says why not.
 * @throws {KernelError} ENOENT (there never was a listener), ECONNREFUSED (there is none any more), EAGAIN (backlog full).
 */
export function connectUnix(path: string): UnixStream {
  const target = address(path);
  const fd = openSocket();
  const failed = tryCall("connect", fd.number, target, 2 + Buffer.byteLength(path) + 1);
  if (failed === 0) return new UnixStream(fd, { isDialled: true });
  fd.close();
  throw new KernelError(`connect to ${path}`, -failed);
}

/**
 * Listens on a unix socket. A socket file without a listener is replaced; one in use is left alone.
 * @throws {KernelError} EADDRINUSE when it has a listener.
 */
export function listenUnix(path: string, options: ListenUnixOptions): UnixListener {
  removeStale(path);
  const fd = openSocket();
  try {
    call(`bind ${path}`, "bind", fd.number, address(path), 2 + Buffer.byteLength(path) + 1);
    chmodSync(path, options.mode);
    call(`listen on ${path}`, "listen", fd.number, BACKLOG);
  } catch (error) {
    fd.close();
    throw error;
  }
  const ours = lstatSync(path);
  const accept = () => acceptSome(fd, path, { ...options, poll });
  const failed = (error: Error) =>
    rest({ ...options, poll }, new KernelError(`accept on ${path}`, Errno.EIO, error.message));
  const poll = openPoll(fd.number, guarded("unix-listener", accept, failed));
  poll.watch(POLL_READABLE);
  return {
    path,
    close() {
      if (fd.isClosed) return;
      poll.close();
      // A process that took over from us may listen under the same name by now: its file is another one, and has another
      // number as long as our socket is open.
      const found = lstatSync(path, { throwIfNoEntry: false });
      if (found?.dev === ours.dev && found.ino === ours.ino) rmSync(path, { force: true });
      fd.close();
    },
  };
}

function acceptSome(listener: Fd, path: string, options: ListenUnixOptions & { readonly poll: Poll }): void {
  for (let turn = 0; turn < ACCEPTS_PER_TURN && !listener.isClosed; turn += 1) {
    const accepted = tryCall("accept4", listener.number, null, null, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (accepted === -Errno.EAGAIN) return;
    if (accepted === -Errno.EINTR || accepted === -Errno.ECONNABORTED) continue;
    if (accepted < 0) {
      // The connection that still waits would wake us again at once and for ever.
      rest(options, new KernelError(`accept on ${path}`, -accepted));
      return;
    }
    takeOver(Fd.own(accepted), options);
  }
}

/** What goes wrong with one connection ends that one: those that wait behind it are taken all the same. */
const takeOver = guarded(
  "unix-listener",
  (fd: Fd, { onStream }: ListenUnixOptions) => {
    const stream = new UnixStream(fd);
    try {
      onStream(stream);
    } catch (error) {
      stream.destroy();
      throw error;
    }
  },
  (_error, fd) => fd.close(),
);

function rest({ poll, onError }: ListenUnixOptions & { readonly poll: Poll }, error: KernelError): void {
  poll.watch(0);
  const goOn = () => poll.watch(POLL_READABLE);
  systemClock.after(REST_MS, guarded("timer", goOn, goOn));
  onError(error);
}

/** A refused connection says that there is no listener any more; it is refused for a file that is no socket too. */
function removeStale(path: string): void {
  if (!lstatSync(path, { throwIfNoEntry: false })?.isSocket()) return;
  const target = address(path);
  const fd = openSocket();
  const failed = tryCall("connect", fd.number, target, 2 + Buffer.byteLength(path) + 1);
  fd.close();
  if (failed === -Errno.ECONNREFUSED) rmSync(path, { force: true });
}

function openSocket(): Fd {
  return Fd.own(call("open a unix socket", "socket", AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
}

/** struct sockaddr_un, include/uapi/linux/un.h. */
function address(path: string): Buffer {
  if (Buffer.byteLength(path) >= SUN_PATH_BYTES || path.includes("\0") || path === "") {
    throw new TypeError(
      `Cannot use "${path}" as a socket path: it must have 1 to ${SUN_PATH_BYTES - 1} bytes and no NUL`,
    );
  }
  const bytes = Buffer.alloc(2 + SUN_PATH_BYTES);
  bytes.writeUInt16LE(AF_UNIX, 0);
  bytes.write(path, 2);
  return bytes;
}
