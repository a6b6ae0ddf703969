// Writes that the kernel may hold for long: an unbind waits until user space has closed the device, a bind for the driver's
// probe. They run on threads of the C library: POSIX asynchronous I/O (aio(7)), which calls uv_async_send when it is done.
// Why not worker threads: docs/decisions/003-writes-that-hang.md.
import { type Clock, guarded, systemClock } from "../async/index.ts";
import { Errno } from "./errno.ts";
import { KernelError } from "./error.ts";
import { Fd } from "./fd.ts";
import { addressOf, allowAioThreads, call, offHeap, openWake, tryCall, type Wake } from "./native.ts";

/** So many writes may run at once, those that hang included; more wait for a thread. */
const THREADS = 256;
/** Writes that may hang at the same time; beyond that something is badly wrong and more threads would not mend it. */
const STUCK_LIMIT = 64;

/** O_WRONLY | O_NONBLOCK | O_CLOEXEC, include/uapi/asm-generic/fcntl.h. */
const OPEN_FLAGS = 0o1 | 0o4000 | 0o2000000;
const F_SETFL = 4;
/** SIGEV_THREAD, bits/sigevent-consts.h: a thread calls a function when the write has ended. */
const SIGEV_THREAD = 2;
// struct aiocb of 64-bit glibc and musl (168 bytes): s32 descriptor, buffer, size_t length, then struct sigevent: its value,
// s32 signal, s32 kind, function. The offset to write at (128) and the rest stay 0.
const aiocb = { fd: 0, buffer: 16, length: 24, value: 32, notify: 44, function: 48, size: 168 } as const;

interface Running {
  readonly block: Buffer;
  readonly bytes: Buffer;
  readonly fd: Fd;
  /** Bytes written, or minus the errno. */
  ended(result: number): void;
  /** Its limit has passed; its caller waits no more. */
  isLate: boolean;
}

/** How long a write is waited for. */
export interface WriteLimit {
  readonly limitMs: number;
  /** Called when a write that was given up has returned after all, whatever came of it. */
  readonly onLateReturn?: (() => void) | undefined;
}

/** Writes a text to an existing file in one write. */
export type TextWrites = Pick<BlockingWrites, "write">;

/** Writes with a limit. One that hangs is left alone, and others pass it. */
export class BlockingWrites {
  readonly #clock: Clock;
  readonly #running = new Set<Running>();
  /** From the first write on, for as long as the process runs: a thread of the C library may use it after the write has ended. */
  #wake: Wake | undefined;
  #stuck = 0;

  constructor(clock: Clock = systemClock) {
    this.#clock = clock;
  }

  /** Writes that passed their limit and have not returned. They do not keep the process from exiting. */
  get stuckCount(): number {
    return this.#stuck;
  }

  /**
   * Opens an existing file and writes a text in one write.
   * @throws {KernelError} the kernel's errno; ETIMEDOUT when it does not return within the limit (it continues hanging and
   * may still take effect); EBUSY when too many writes hang already.
   */
  async write(path: string, text: string, { limitMs, onLateReturn }: WriteLimit): Promise<void> {
    const op = `write ${JSON.stringify(text.trim())} to ${path}`;
    if (this.#stuck >= STUCK_LIMIT) throw new KernelError(op, Errno.EBUSY, `${this.#stuck} earlier writes still hang`);
    const bytes = offHeap(Buffer.byteLength(text));
    const length = bytes.write(text);
    const fd = openForWrite(path, op);
    const result = await this.#within({ limitMs, onLateReturn }, op, { fd, bytes, length });
    if (result < 0) throw new KernelError(op, -result);
    if (result < length) throw new KernelError(op, Errno.EIO, `only ${result} of ${length} bytes were taken`);
  }

  #within(
    { limitMs, onLateReturn }: WriteLimit,
    op: string,
    what: Pick<Running, "fd" | "bytes"> & { length: number },
  ): Promise<number> {
    return new Promise((resolve, reject) => {
      const late = guarded("timer", () => {
        write.isLate = true;
        this.#stuck += 1;
        this.#keepProcessAlive();
        reject(new KernelError(op, Errno.ETIMEDOUT, `the kernel did not finish within ${limitMs} ms`));
      });
      const limit = this.#clock.after(limitMs, late);
      const write: Running = {
        ...what,
        block: offHeap(aiocb.size),
        isLate: false,
        ended: (result) => {
          limit.cancel();
          what.fd.close();
          resolve(result);
          if (!write.isLate) return;
          this.#stuck -= 1;
          onLateReturn?.();
        },
      };
      const failed = this.#start(write, what.length);
      if (failed < 0) write.ended(failed);
    });
  }

  /** Answers 0, or minus the errno: EAGAIN when the C library can take no more. */
  #start(write: Running, length: number): number {
    const wake = this.#openWake();
    const { block } = write;
    block.writeInt32LE(write.fd.number, aiocb.fd);
    block.writeBigUInt64LE(addressOf(write.bytes), aiocb.buffer);
    block.writeBigUInt64LE(BigInt(length), aiocb.length);
    block.writeBigUInt64LE(wake.argument, aiocb.value);
    block.writeInt32LE(SIGEV_THREAD, aiocb.notify);
    block.writeBigUInt64LE(wake.functionAddress, aiocb.function);
    const failed = tryCall("aio_write", block);
    if (failed === 0) this.#running.add(write);
    this.#keepProcessAlive();
    return failed;
  }

  #openWake(): Wake {
    if (this.#wake) return this.#wake;
    allowAioThreads(THREADS);
    const collect = () => this.#collect();
    this.#wake = openWake(guarded("kernel-write", collect, collect));
    return this.#wake;
  }

  /** A wake does not say whose write has ended. */
  #collect(): void {
    for (const write of this.#running) {
      const state = tryCall("aio_error", write.block);
      if (state === Errno.EINPROGRESS) continue;
      this.#running.delete(write);
      const result = tryCall("aio_return", write.block);
      write.ended(state === 0 ? result : -state);
    }
    this.#keepProcessAlive();
  }

  /** A write may have a caller that waits; one that hangs has none. */
  #keepProcessAlive(): void {
    this.#wake?.keepAlive([...this.#running].some((write) => !write.isLate));
  }
}

/** Opening must not hang either: O_NONBLOCK, which is taken away again for the write. */
function openForWrite(path: string, op: string): Fd {
  const fd = Fd.own(call(op, "open", path, OPEN_FLAGS, 0));
  tryCall("fcntl", fd.number, F_SETFL, 0);
  return fd;
}
