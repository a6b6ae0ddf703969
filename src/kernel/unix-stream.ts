import { Duplex } from "node:stream";
import { Errno } from "./errno.ts";
import { KernelError } from "./error.ts";
import type { Fd } from "./fd.ts";
import { openPoll, POLL_READABLE, POLL_WRITABLE, type Poll, tryCall } from "./native.ts";
import { FdExchange, type PassedFds } from "./passed-fds.ts";
import { readPeerPid, receiveMessage, sendBytes, sendByteWithFd } from "./socket-message.ts";

/** So many reads in one go, then others get their turn. */
const READS_PER_TURN = 16;
const SHUT_WR = 1;
/** Small pieces of one flush are joined up to this size into one send. */
const GATHER_BYTES = 64 * 1024;

/** A connected unix stream socket that carries descriptors beside its bytes. TLS and HTTP/2 run on it unaware of them. */
export class UnixStream extends Duplex {
  readonly #fd: Fd;
  readonly #poll: Poll;
  readonly #exchange = new FdExchange();
  #wants = 0;
  #resumeWrite: (() => void) | undefined;

  /** Takes over a connected, non-blocking unix stream socket. */
  constructor(fd: Fd) {
    super({ allowHalfOpen: true });
    this.#fd = fd;
    this.#poll = openPoll(fd.number, (events) => this.#onEvents(events));
    // allowHalfOpen false would end us before TLS has written its close_notify; true alone would keep us half open for ever.
    this.once("end", () => setImmediate(() => this.end()));
  }

  /** The process that made the other end; undefined where the kernel does not tell. */
  get peerPid(): number | undefined {
    return this.destroyed ? undefined : readPeerPid(this.#fd.number);
  }

  /** The descriptors that travel with this stream. */
  get fds(): PassedFds {
    return this.#exchange;
  }

  override _read(): void {
    this.#want(POLL_READABLE, true);
  }

  override _write(chunk: Buffer, _encoding: string, done: (error?: Error | null) => void): void {
    this.#writeFrom(chunk, 0, done);
  }

  override _writev(chunks: { chunk: Buffer }[], done: (error?: Error | null) => void): void {
    const joined = Buffer.concat(chunks.map((piece) => piece.chunk));
    this.#writeFrom(joined, 0, done);
  }

  override _final(done: (error?: Error | null) => void): void {
    tryCall("shutdown", this.#fd.number, SHUT_WR);
    done();
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    this.#poll.close();
    this.#fd.close();
    this.#exchange.close(error ?? new Error("The connection was closed"));
    done(error);
  }

  #want(event: number, yes: boolean): void {
    const wants = yes ? this.#wants | event : this.#wants & ~event;
    if (wants === this.#wants || this.destroyed) return;
    this.#wants = wants;
    this.#poll.watch(wants);
  }

  #onEvents(events: number): void {
    if (this.destroyed) return;
    if (events & POLL_WRITABLE) {
      this.#want(POLL_WRITABLE, false);
      this.#resumeWrite?.();
    }
    if (events & POLL_READABLE && !this.destroyed) this.#readSome();
  }

  #readSome(): void {
    for (let turn = 0; turn < READS_PER_TURN && !this.destroyed; turn += 1) {
      const { result, bytes, fds, truncated } = receiveMessage(this.#fd.number);
      if (result === -Errno.EAGAIN || result === -Errno.EINTR) return;
      if (result < 0) {
        this.destroy(new KernelError("read from a unix socket", -result));
        return;
      }
      for (const fd of fds) this.#exchange.arrived(fd);
      if (truncated) this.emit("fds-lost");
      if (result === 0) {
        this.#want(POLL_READABLE, false);
        this.push(null);
        return;
      }
      if (!this.push(Buffer.from(bytes))) {
        this.#want(POLL_READABLE, false);
        return;
      }
    }
  }

  #writeFrom(chunk: Buffer, start: number, done: (error?: Error | null) => void): void {
    let at = start;
    while (at < chunk.length) {
      const sent = this.#exchange.hasOutgoing ? this.#sendFdWith(chunk, at) : this.#sendPlain(chunk, at);
      if (sent === -Errno.EAGAIN) {
        const rest = at;
        this.#resumeWrite = () => this.#writeFrom(chunk, rest, done);
        this.#want(POLL_WRITABLE, true);
        return;
      }
      if (sent < 0 && sent !== -Errno.EINTR) {
        done(new KernelError("write to a unix socket", -sent));
        return;
      }
      at += Math.max(sent, 0);
    }
    this.#resumeWrite = undefined;
    done();
  }

  #sendPlain(chunk: Buffer, at: number): number {
    return sendBytes(this.#fd.number, chunk.subarray(at, at + GATHER_BYTES));
  }

  /** Sends the byte at `at` with the oldest waiting descriptor; a descriptor that the kernel refuses is dropped alone. */
  #sendFdWith(chunk: Buffer, at: number): number {
    const fd = this.#exchange.takeOutgoing();
    if (!fd) return 0;
    const sent = sendByteWithFd(this.#fd.number, chunk[at] ?? 0, fd);
    if (sent === -Errno.EAGAIN || sent === -Errno.EINTR) {
      this.#exchange.putBack(fd);
      return sent;
    }
    fd.close();
    if (sent === -Errno.ETOOMANYREFS) {
      this.emit("fds-lost");
      return 0;
    }
    return sent;
  }
}
