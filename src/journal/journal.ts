import type { Clock, Timer } from "../async/index.ts";
import type { AppendFile } from "../kernel/index.ts";
import { JournalError } from "./error.ts";
import { decodeFrames, encodeFrame } from "./frame.ts";

/** What a key can have. */
export type Json = null | boolean | number | string | readonly Json[] | { readonly [key: string]: Json };

export interface JournalOptions {
  readonly file: AppendFile;
  readonly clock: Clock;
  /** Told with the reason when the disk takes nothing more, and with undefined when it does again. */
  readonly onTrouble: (problem: string | undefined) => void;
}

/** What an earlier process left. */
export interface JournalFound {
  readonly entries: ReadonlyMap<string, Json>;
  /** Bytes that could not be read as a record: of a write that a crash cut off, or worse. */
  readonly damagedBytes: number;
}

/** The file is written anew, with nothing but what counts, when it has grown beyond this and beyond four times that. */
const COMPACT_BYTES = 256 * 1024;
const RETRY_MS = 5_000;

type Record = readonly [key: string, value?: Json];

/**
 * The latest value of each key. A change resolves when it is on disk; changes that come while the disk is busy share the next
 * write. After a failure the file is behind, and the next write that the disk takes brings everything up to date.
 */
export class Journal {
  readonly found: JournalFound;
  readonly #options: JournalOptions;
  readonly #values: Map<string, Json>;
  #waiting: Buffer[] = [];
  #next: Promise<void> | undefined;
  #running: Promise<void> = Promise.resolve();
  #isBehind: boolean;
  #retry: Timer | undefined;

  /** @throws {JournalError} newer-version. */
  constructor(options: JournalOptions) {
    this.#options = options;
    const { payloads, damagedBytes } = decodeFrames(options.file.found);
    const values = new Map<string, Json>();
    for (const payload of payloads) {
      // The checksum has proved that it is what we once wrote.
      const [key, value] = JSON.parse(payload.toString()) as Record;
      if (value === undefined) values.delete(key);
      else values.set(key, value);
    }
    this.found = { entries: new Map(values), damagedBytes };
    this.#values = values;
    // What is damaged goes with the first write: nothing is appended behind it.
    this.#isBehind = damagedBytes > 0;
  }

  /** Resolves when the value is safe. @throws {JournalError} not-writable; it is tried again as long as it is wanted. */
  put(key: string, value: Json): Promise<void> {
    this.#values.set(key, value);
    return this.#save([key, value]);
  }

  /** Resolves when the key is gone for good. @throws {JournalError} not-writable. */
  async drop(key: string): Promise<void> {
    if (this.#values.delete(key) || this.#isBehind) await this.#save([key]);
  }

  /** Waits for what is being written. */
  async close(): Promise<void> {
    this.#retry?.cancel();
    await (this.#next ?? this.#running).catch(() => {});
    await this.#options.file.close();
  }

  #save(record: Record): Promise<void> {
    this.#waiting.push(frameOf(record));
    return this.#writeInTurn();
  }

  #writeInTurn(): Promise<void> {
    this.#next ??= this.#running.then(() => {
      this.#next = undefined;
      const written = this.#write(this.#waiting.splice(0));
      this.#running = written.catch(() => {});
      return written;
    });
    return this.#next;
  }

  async #write(frames: readonly Buffer[]): Promise<void> {
    const { file, onTrouble } = this.#options;
    try {
      const isLong = file.sizeBytes > COMPACT_BYTES && file.sizeBytes > 4 * this.#liveBytes().length;
      if (this.#isBehind || isLong) await file.replace(this.#liveBytes());
      else await file.append(Buffer.concat(frames));
    } catch (error) {
      this.#isBehind = true;
      const problem = error instanceof Error ? error.message : String(error);
      onTrouble(problem);
      this.#retryLater();
      throw new JournalError({ kind: "not-writable", problem }, { cause: error });
    }
    if (!this.#isBehind) return;
    this.#isBehind = false;
    onTrouble(undefined);
  }

  #liveBytes(): Buffer {
    return Buffer.concat([...this.#values].map(frameOf));
  }

  #retryLater(): void {
    this.#retry?.cancel();
    this.#retry = this.#options.clock.after(RETRY_MS, () => {
      if (this.#isBehind) void this.#writeInTurn().catch(() => {}); // told, and tried again
    });
  }
}

function frameOf(record: Record): Buffer {
  return encodeFrame(Buffer.from(JSON.stringify(record)));
}
