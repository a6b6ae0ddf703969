import { type Clock, messageOf, type Timer } from "../async/index.ts";
import { type AppendFile, FileRemovedError } from "../kernel/index.ts";
import { JournalError } from "./error.ts";
import { findRecords } from "./found-records.ts";
import { encodeFrame } from "./frame.ts";
import type { Json } from "./json.ts";

export interface JournalOptions<Value = Json> {
  readonly file: AppendFile;
  readonly clock: Clock;
  /** Called with the reason when the disk takes nothing more, and with undefined when it does again. */
  readonly onTrouble: (problem: string | undefined) => void;
  /** What is kept of what the previous instance left; everything by default. What is not kept is dropped from the disk. */
  readonly selection?: Selection<Value>;
}

/** Decides record by record, so that what is too much is never in memory all at once. */
export interface Selection<Value> {
  /** The lowest are decided first. */
  readonly rank: (key: string) => number;
  readonly keeps: (key: string, value: Value) => boolean;
}

/** What the previous instance left. */
interface JournalFound<Value> {
  /** What was kept of it. */
  readonly entries: ReadonlyMap<string, Value>;
  /** Bytes that could not be read as a record: of a write that a crash cut off, or worse. */
  readonly damagedBytes: number;
}

/**
 * The file is written again, with nothing but what counts, when it has grown beyond this and most of it is history: each byte is
 * written at most twice.
 */
const COMPACT_BYTES = 256 * 1024;
/** Written at once when the file is written again; the event loop continues in between. */
const SLICE_BYTES = 256 * 1024;
const RETRY_MS = 5_000;

const EVERYTHING: Selection<unknown> = { rank: () => 0, keeps: () => true };

/**
 * Opens the journal in the file. A value is what this version or another has put, as JSON. Memory is bounded by what is kept and the
 * largest record, whatever the size of the file.
 * @throws {JournalError} newer-version; the file system's error when it cannot be read.
 */
export async function openJournal<Value = Json>(
  options: JournalOptions<Value>,
): Promise<{ journal: Journal<Value>; found: JournalFound<Value> }> {
  try {
    const { journal, found, dropped } = await readAll(options);
    await options.file.close(); // What is written opens what it needs.
    if (dropped > 0) void journal.rewrite();
    return { journal, found };
  } catch (error) {
    await options.file.close();
    throw error;
  }
}

async function readAll<Value>(options: JournalOptions<Value>) {
  const { file, selection = EVERYTHING } = options;
  const records = await findRecords<Value>(file);
  const entries = new Map<string, Value>();
  let dropped = 0;
  let damagedBytes = records.damagedBytes;
  for (const key of records.keys.toSorted((a, b) => selection.rank(a) - selection.rank(b))) {
    const value = await records.read(key);
    if (value === undefined) damagedBytes += key.length;
    else if (selection.keeps(key, value)) entries.set(key, value);
    else dropped += 1;
  }
  // What is damaged goes with the first write: nothing is appended behind it.
  const journal = new Journal(options, entries, damagedBytes > 0);
  return { journal, found: { entries, damagedBytes }, dropped };
}

/**
 * The latest value of each key. A change resolves when it is on disk; changes that come while the disk is busy share the next
 * write. After a failure the file is behind, and the next write that the disk takes brings everything up to date. What a change
 * costs depends on its own size: the rest is written again only after as much has been written since the last time.
 */
export class Journal<Value> {
  readonly #options: JournalOptions<Value>;
  /** As they lie on disk. */
  readonly #frames = new Map<string, Buffer>();
  #liveBytes = 0;
  #waiting: Buffer[] = [];
  #next: Promise<void> | undefined;
  #running: Promise<void> = Promise.resolve();
  #isBehind: boolean;
  #retry: Timer | undefined;
  #isClosed = false;

  constructor(options: JournalOptions<Value>, entries: ReadonlyMap<string, Value>, isBehind: boolean) {
    this.#options = options;
    for (const [key, value] of entries) this.#set(key, frameOf([key, value]));
    this.#isBehind = isBehind;
  }

  /** Resolves when the value is safe. @throws {JournalError} not-writable; it is tried again as long as it is needed. */
  put(key: string, value: Value): Promise<void> {
    const frame = frameOf([key, value]);
    this.#set(key, frame);
    return this.#save(frame);
  }

  /** Resolves when the key is gone for good. @throws {JournalError} not-writable. */
  async drop(key: string): Promise<void> {
    if (this.#set(key, undefined) || this.#isBehind) await this.#save(frameOf([key]));
  }

  /** Checks whether the file is still there, and writes it again when it is not. Never throws: trouble is reported. */
  async check(): Promise<void> {
    await this.#writeInTurn().catch(() => {});
  }

  /** Writes the file again, with nothing but what counts. Never throws: trouble is reported, and it is tried again. */
  async rewrite(): Promise<void> {
    this.#isBehind = true;
    await this.#writeInTurn().catch(() => {});
  }

  /** Waits for what is being written. What comes later is refused. */
  async close(): Promise<void> {
    const last = this.#next ?? this.#running;
    this.#isClosed = true;
    this.#retry?.cancel();
    await last.catch(() => {});
    await this.#options.file.close();
  }

  /** True if there was another one. */
  #set(key: string, frame: Buffer | undefined): boolean {
    const before = this.#frames.get(key);
    this.#liveBytes += (frame?.length ?? 0) - (before?.length ?? 0);
    if (frame) this.#frames.set(key, frame);
    else this.#frames.delete(key);
    return before !== undefined;
  }

  #save(frame: Buffer): Promise<void> {
    this.#waiting.push(frame);
    return this.#writeInTurn();
  }

  #writeInTurn(): Promise<void> {
    // The file would be opened again, and would never be closed.
    if (this.#isClosed) return Promise.reject(new JournalError({ kind: "closed" }));
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
      const isLong = file.sizeBytes > COMPACT_BYTES && file.sizeBytes > 2 * this.#liveBytes;
      if (this.#isBehind || isLong) await this.#writeAll();
      else await this.#writeMore(frames);
    } catch (error) {
      this.#isBehind = true;
      const problem = messageOf(error);
      onTrouble(problem);
      this.#retryLater();
      throw new JournalError({ kind: "not-writable", problem }, { cause: error });
    }
    if (!this.#isBehind) return;
    this.#isBehind = false;
    onTrouble(undefined);
  }

  async #writeMore(frames: readonly Buffer[]): Promise<void> {
    const { file, onTrouble } = this.#options;
    try {
      if (frames.length > 0) return await file.append(Buffer.concat(frames));
      if (await file.isInPlace()) return;
      throw new FileRemovedError();
    } catch (error) {
      if (!(error instanceof FileRemovedError)) throw error;
      this.#isBehind = true;
      onTrouble(error.message);
      await this.#writeAll();
    }
  }

  /** Everything as it is at this instant: later changes are appended behind it. */
  async #writeAll(): Promise<void> {
    await this.#options.file.replace(slices([...this.#frames.values()]));
  }

  #retryLater(): void {
    this.#retry?.cancel();
    this.#retry = this.#options.clock.after(RETRY_MS, () => {
      if (this.#isBehind) void this.#writeInTurn().catch(() => {}); // reported, and tried again
    });
  }
}

function frameOf(record: readonly [key: string, value?: unknown]): Buffer {
  return encodeFrame(Buffer.from(JSON.stringify(record)));
}

function* slices(frames: readonly Buffer[]): Generator<Buffer> {
  let slice: Buffer[] = [];
  let bytes = 0;
  for (const frame of frames) {
    if (bytes > 0 && bytes + frame.length > SLICE_BYTES) {
      yield Buffer.concat(slice);
      slice = [];
      bytes = 0;
    }
    slice.push(frame);
    bytes += frame.length;
  }
  if (bytes > 0) yield Buffer.concat(slice);
}
