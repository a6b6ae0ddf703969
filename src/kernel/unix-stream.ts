import { Duplex } from "node:stream";
import { guarded } from "../async/index.ts";
import { Errno } from "./errno.ts";
import { KernelError } from "./error.ts";
import type { Fd } from "./fd.ts";
import { FdExchange, type PassedFds } from "./fd-exchange.ts";
import { openPoll, POLL_READABLE, POLL_WRITABLE, type Poll, tryCall } from "./native.ts";
import { readPeerPid, receiveMessage, sendByteWithFd, sendPieces } from "./socket-message.ts";

/** So many reads in one go, then others get their turn. */
const READS_PER_TURN = 16;
const SHUT_WR = 1;

type Done = (error?: Error | null) => void;

/** A write under way: `at` bytes of its first piece are sent. */
interface Sending {
  readonly pieces: Buffer[];
  at: number;
  readonly done: Done;
}

/** A connected unix stream socket that carries descriptors beside its bytes. TLS and HTTP/2 run on it unaware of them. */
export class UnixStream extends Duplex {
  readonly #fd: Fd;
  readonly #poll: Poll;
  readonly #exchange = new FdExchange();
  readonly #isDialled: boolean;
  readonly #begin = guarded(
    "unix-stream",
    (sending: Sending) => this.#send(sending),
    (error) => void this.destroy(error),
  );
  #wants = 0;
  #sending: Sending | undefined;

  /**
   * Takes over a connected, non-blocking unix stream socket. One that we dialled may pass us any number of descriptors: its answers
   * carry them, as the manager's do for each endpoint that we request, and no call of the peer names them.
   */
  constructor(fd: Fd, { isDialled = false } = {}) {
    super({ allowHalfOpen: true });
    this.#fd = fd;
    this.#isDialled = isDialled;
    const end = (error: Error) => void this.destroy(error);
    const onEvents = guarded("unix-stream", (events: number) => this.#onEvents(events), end);
    this.#poll = openPoll(fd.number, onEvents);
    // allowHalfOpen false would end us before TLS has written its close_notify; true alone would keep us half open for ever.
    const endToo = guarded("unix-stream", () => void this.end(), end);
    this.once(
      "end",
      guarded("unix-stream", () => void setImmediate(endToo)),
    );
  }

  /** The process that made the other end; undefined where the kernel does not say. */
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

  override _write(chunk: Buffer, _encoding: string, done: Done): void {
    this.#begin({ pieces: [chunk], at: 0, done });
  }

  override _writev(chunks: { chunk: Buffer }[], done: Done): void {
    this.#begin({ pieces: chunks.map(({ chunk }) => chunk), at: 0, done });
  }

  override _final(done: Done): void {
    tryCall("shutdown", this.#fd.number, SHUT_WR);
    done();
  }

  override _destroy(error: Error | null, done: Done): void {
    // The watch ends before the descriptor: its number may be another's in the next moment.
    this.#poll.close();
    this.#fd.close();
    const because = error ?? new Error("The connection was closed");
    this.#exchange.close(because);
    const sending = this.#sending;
    this.#sending = undefined;
    sending?.done(because);
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
    if (events & POLL_WRITABLE && this.#sending) this.#send(this.#sending);
    if (events & POLL_READABLE && !this.destroyed) this.#readSome();
  }

  // A message that brought descriptors ends its read early: only EAGAIN says that there is nothing more.
  #readSome(): void {
    for (let turn = 0; turn < READS_PER_TURN && !this.destroyed; turn += 1) {
      const { result, bytes, fds, truncated } = receiveMessage(this.#fd.number);
      if (result === -Errno.EAGAIN || result === -Errno.EINTR) return;
      if (result < 0) {
        this.destroy(new KernelError("read from a unix socket", -result));
        return;
      }
      for (const fd of fds) this.#exchange.arrived(fd);
      if (!this.#isDialled && this.#exchange.isFlooded) {
        this.destroy(new Error("The peer passes descriptors that no call names"));
        return;
      }
      if (truncated) this.#exchange.lost(new KernelError("keep the descriptors that a peer has sent", Errno.EMFILE));
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

  #send(sending: Sending): void {
    this.#sending = sending;
    const { pieces } = sending;
    while (pieces.length > 0) {
      const sent = this.#sendSome(sending);
      if (sent === -Errno.EAGAIN) {
        this.#want(POLL_WRITABLE, true);
        return;
      }
      if (sent < 0 && sent !== -Errno.EINTR) {
        this.#sent(new KernelError("write to a unix socket", -sent));
        return;
      }
      sending.at += Math.max(sent, 0);
      let whole = 0;
      for (let first = pieces[0]; first && sending.at >= first.length; first = pieces[whole]) {
        sending.at -= first.length;
        whole += 1;
      }
      pieces.splice(0, whole);
    }
    this.#sent();
  }

  #sent(error?: Error): void {
    const done = this.#sending?.done;
    this.#sending = undefined;
    this.#want(POLL_WRITABLE, false);
    done?.(error);
  }

  /** While descriptors wait, one byte with one of them, as NSM's peers expect; then as much as the kernel takes. */
  #sendSome({ pieces, at }: Sending): number {
    const byte = pieces[0]?.[at];
    const fd = byte === undefined ? undefined : this.#exchange.takeOutgoing();
    if (byte === undefined || !fd) return sendPieces(this.#fd.number, pieces, at);
    const sent = sendByteWithFd(this.#fd.number, byte, fd);
    if (sent === -Errno.EAGAIN || sent === -Errno.EINTR) {
      this.#exchange.putBack(fd);
      return sent;
    }
    fd.close();
    // Too many descriptors are on their way: this one is lost, its byte goes without it, the stream stays whole.
    return sent === -Errno.ETOOMANYREFS ? 0 : sent;
  }
}
