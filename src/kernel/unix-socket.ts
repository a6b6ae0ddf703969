import { chmodSync, lstatSync, rmSync } from "node:fs";
import { Errno } from "./errno.ts";
import { KernelError } from "./error.ts";
import { Fd } from "./fd.ts";
import { call, openPoll, POLL_READABLE, tryCall } from "./native.ts";
import { UnixStream } from "./unix-stream.ts";

const AF_UNIX = 1;
const SOCK_STREAM = 1;
const SOCK_NONBLOCK = 0o4000;
const SOCK_CLOEXEC = 0o2000000;
/** sizeof sun_path, include/uapi/linux/un.h; the final NUL counts. */
const SUN_PATH_BYTES = 108;
const BACKLOG = 511;
const ACCEPTS_PER_TURN = 32;

/** A listening unix socket. */
export interface UnixListener {
  readonly path: string;
  /** Stops listening and removes the socket file, if it is still ours. Streams that were accepted go on. */
  close(): void;
}

/**
 * Connects to a unix socket. It never waits: the kernel connects at once or says why not.
 * @throws {KernelError} ENOENT (nobody ever listened there), ECONNREFUSED (nobody listens any more), EAGAIN (backlog full).
 */
export function connectUnix(path: string): UnixStream {
  const target = address(path);
  const fd = openSocket();
  const failed = tryCall("connect", fd.number, target, 2 + Buffer.byteLength(path) + 1);
  if (failed === 0) return new UnixStream(fd);
  fd.close();
  throw new KernelError(`connect to ${path}`, -failed);
}

/**
 * Listens on a unix socket. A socket file that nobody listens on any more is replaced; one in use is left alone.
 * @throws {KernelError} EADDRINUSE when somebody listens there.
 */
export function listenUnix(
  path: string,
  options: { readonly mode: number; onStream(stream: UnixStream): void; onError(error: KernelError): void },
): UnixListener {
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
  const poll = openPoll(fd.number, () => acceptSome(fd, path, options));
  poll.watch(POLL_READABLE);
  return {
    path,
    close() {
      if (fd.isClosed) return;
      poll.close();
      fd.close();
      // A process that took over from us may listen under the same name by now: its file is another one.
      const found = lstatSync(path, { throwIfNoEntry: false });
      if (found?.dev === ours.dev && found.ino === ours.ino) rmSync(path, { force: true });
    },
  };
}

function acceptSome(
  listener: Fd,
  path: string,
  options: { onStream(stream: UnixStream): void; onError(error: KernelError): void },
): void {
  for (let turn = 0; turn < ACCEPTS_PER_TURN && !listener.isClosed; turn += 1) {
    const accepted = tryCall("accept4", listener.number, null, null, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (accepted >= 0) options.onStream(new UnixStream(Fd.own(accepted)));
    else if (accepted === -Errno.EAGAIN) return;
    else if (accepted !== -Errno.EINTR && accepted !== -Errno.ECONNABORTED) {
      options.onError(new KernelError(`accept on ${path}`, -accepted));
      return;
    }
  }
}

function removeStale(path: string): void {
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
