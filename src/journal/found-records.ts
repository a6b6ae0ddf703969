// What a journal of any size and in any state says, in time that grows with its size and in memory that does not: one pass sums it
// up, one finds the latest record of each key, and each value is read when it is requested.
import { CRC_BLOCK_BYTES, CrcRanges, combineCrc } from "./crc-range.ts";
import { JournalError } from "./error.ts";
import { FileWindow, type ReadableFile } from "./file-window.ts";
import { HEADER_BYTES, MAGIC, readHeader, VERSION } from "./frame.ts";

/** What the previous instance left. */
interface FoundRecords<Value> {
  /** Of each key that has a value. */
  readonly keys: readonly string[];
  /** Bytes that could not be read as a record: of a write that a crash cut off, or worse. */
  readonly damagedBytes: number;
  /** The latest value of one of the keys; undefined when it makes no sense. */
  read(key: string): Promise<Value | undefined>;
}

/** Read at once while summing up. A whole number of blocks. */
const PASS_BYTES = 1024 * CRC_BLOCK_BYTES;
/** What is read of a record for its key, at first. */
const KEY_BYTES = 512;
/** `["key"` and what follows. */
const KEY_TEXT = /^\["(?:[^"\\]|\\.)*"(?=([,\]]))/;

interface Place {
  readonly at: number;
  readonly bytes: number;
}

/** @throws {JournalError} newer-version when a sound record has a version that is not known here; the file system's error. */
export async function findRecords<Value>(file: ReadableFile): Promise<FoundRecords<Value>> {
  const search = new RecordSearch(file, await sumUp(file));
  const places = new Map<string, Place>();
  let damagedBytes = 0;
  for (let at = 0; at < file.sizeBytes; ) {
    const payload = await search.payloadAt(at);
    if (payload) {
      const found = await search.keyOf(payload);
      if (!found) damagedBytes += payload.bytes;
      else if (found.hasValue) places.set(found.key, payload);
      else places.delete(found.key);
      at = payload.at + payload.bytes;
      continue;
    }
    const next = await search.nextAfter(at);
    damagedBytes += next - at;
    at = next;
  }
  return {
    keys: [...places.keys()],
    damagedBytes,
    async read(key) {
      const place = places.get(key);
      if (!place) return undefined;
      return secondOf<Value>(String(await file.read(place.at, place.bytes)));
    },
  };
}

/** The second element of a JSON array. */
function secondOf<Value>(text: string): Value | undefined {
  try {
    const [, value]: readonly [unknown, Value] = JSON.parse(text);
    return value;
  } catch {
    return undefined; // Its checksum is sound: not one of ours.
  }
}

async function sumUp(file: ReadableFile): Promise<CrcRanges> {
  const sums = new CrcRanges(file.sizeBytes);
  for (let at = 0; at < file.sizeBytes; at += PASS_BYTES) sums.add(await file.read(at, PASS_BYTES));
  return sums;
}

class RecordSearch {
  readonly #window: FileWindow;
  readonly #sums: CrcRanges;
  readonly #size: number;

  constructor(file: ReadableFile, sums: CrcRanges) {
    this.#window = new FileWindow(file);
    this.#sums = sums;
    this.#size = file.sizeBytes;
  }

  /** The payload of a sound record that begins here. */
  async payloadAt(position: number): Promise<Place | undefined> {
    const header = readHeader(await this.#window.at(position, HEADER_BYTES));
    if (!header) return undefined;
    const payload = { at: position + HEADER_BYTES, bytes: header.payloadBytes };
    const end = payload.at + payload.bytes;
    if (end > this.#size) return undefined;
    const crc = combineCrc(await this.#crcUntil(payload.at), await this.#crcUntil(end), payload.bytes);
    if (!header.isSound(crc)) return undefined;
    const { version } = header;
    if (version > VERSION) throw new JournalError({ kind: "newer-version", version, known: VERSION });
    return payload;
  }

  async #crcUntil(position: number): Promise<number> {
    const tail = position % CRC_BLOCK_BYTES;
    return this.#sums.beginning(position, tail === 0 ? EMPTY : await this.#window.at(position - tail, tail));
  }

  /** Of the JSON array of a key and its value, if it has one; undefined for what we never wrote. */
  async keyOf({ at, bytes }: Place): Promise<{ readonly key: string; readonly hasValue: boolean } | undefined> {
    for (let length = Math.min(KEY_BYTES, bytes); ; length = Math.min(8 * length, bytes)) {
      const [text, end] = KEY_TEXT.exec(String(await this.#window.at(at, length))) ?? [];
      if (text !== undefined) {
        const key = secondOf<unknown>(`[0,${text.slice(1)}]`);
        return typeof key === "string" ? { key, hasValue: end === "," } : undefined;
      }
      if (length === bytes) return undefined;
    }
  }

  /** Where a record may begin next; the end when nowhere. */
  nextAfter(position: number): Promise<number> {
    return this.#window.indexOf(MAGIC, position + 1);
  }
}

const EMPTY = Buffer.alloc(0);
