/** What a worker has to play. */
export interface Assignment {
  readonly names: readonly string[];
  readonly seed: number;
  readonly msEach: number;
  /** Of each target, in place of a time. */
  readonly executions: number | undefined;
  readonly slate: SharedArrayBuffer;
}

const HEAD_BYTES = 16;
const MOST_BYTES = 64 * 1024;

/** Where a worker notes what it is about to do, for whom it would tell nothing more. */
export class Slate {
  readonly #head: Int32Array;
  readonly #body: Buffer;

  constructor(memory: SharedArrayBuffer) {
    this.#head = new Int32Array(memory, 0, 3);
    this.#body = Buffer.from(memory, HEAD_BYTES);
  }

  static memory(): SharedArrayBuffer {
    return new SharedArrayBuffer(HEAD_BYTES + MOST_BYTES);
  }

  write(executions: number, seed: number, input: Buffer): void {
    this.#head[0] = executions;
    this.#head[1] = seed;
    this.#head[2] = Math.min(input.length, MOST_BYTES);
    input.copy(this.#body, 0, 0, MOST_BYTES);
  }

  read(): { readonly executions: number; readonly seed: number; readonly input: Buffer } {
    const [executions = 0, seed = 0, length = 0] = this.#head;
    return { executions, seed, input: Buffer.from(this.#body.subarray(0, length)) };
  }
}
