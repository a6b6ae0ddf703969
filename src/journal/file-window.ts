/** What can be read at any place. */
export interface ReadableFile {
  readonly sizeBytes: number;
  /** The bytes from `position` on, fewer only at the end. */
  read(position: number, length: number): Promise<Buffer>;
}

const CHUNK_BYTES = 16 * 1024;
/** 16 MiB: a journal within its bounds is read once. */
const KEPT_CHUNKS = 1_024;

/** A file of any size through a bounded number of chunks in memory. */
export class FileWindow {
  readonly #file: ReadableFile;
  readonly #chunks = new Map<number, Buffer>();

  constructor(file: ReadableFile) {
    this.#file = file;
  }

  /** The bytes at this place, fewer only at the end; few at a time. */
  async at(position: number, length: number): Promise<Buffer> {
    const first = Math.floor(position / CHUNK_BYTES);
    const last = Math.floor((position + length - 1) / CHUNK_BYTES);
    const from = position - first * CHUNK_BYTES;
    if (first === last) return (await this.#chunk(first)).subarray(from, from + length);
    const parts: Buffer[] = [];
    for (let index = first; index <= last; index++) parts.push(await this.#chunk(index));
    return Buffer.concat(parts).subarray(from, from + length);
  }

  /** Where these bytes are next, at `position` or behind; the file's end when nowhere. */
  async indexOf(desired: Buffer, position: number): Promise<number> {
    const { sizeBytes } = this.#file;
    for (let at = position; at < sizeBytes; ) {
      const border = at - (at % CHUNK_BYTES) + CHUNK_BYTES;
      const found = (await this.at(at, border - at)).indexOf(desired);
      if (found >= 0) return at + found;
      const across = Math.max(at, border - desired.length + 1);
      const foundAcross = (await this.at(across, border - across + desired.length - 1)).indexOf(desired);
      if (foundAcross >= 0) return across + foundAcross;
      at = border;
    }
    return sizeBytes;
  }

  async #chunk(index: number): Promise<Buffer> {
    const known = this.#chunks.get(index);
    if (known) return known;
    const bytes = await this.#file.read(index * CHUNK_BYTES, CHUNK_BYTES);
    const [oldest] = this.#chunks.keys();
    if (this.#chunks.size >= KEPT_CHUNKS && oldest !== undefined) this.#chunks.delete(oldest);
    this.#chunks.set(index, bytes);
    return bytes;
  }
}
