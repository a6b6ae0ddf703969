import type { Disk, DiskFile, FileFacts } from "./disk.ts";
import { codeOf } from "./errno.ts";

/** Another program has removed, replaced or written to the file: what it had is to be written again. */
export class FileRemovedError extends Error {
  override readonly name = "FileRemovedError";

  constructor() {
    super("the file was removed, or changed by another program, while it was in use");
  }
}

interface OpenOptions {
  readonly path: string;
  readonly disk: Disk;
  /** The folder's way of replacing one. */
  readonly replaceFile: (parts: Iterable<Uint8Array>) => Promise<void>;
}

/** A file that grows at its end and is now and then written again. One writer. */
export class AppendFile {
  readonly #options: OpenOptions;
  /** As we know the file; undefined until there is one. */
  #facts: FileFacts | undefined;
  #reader: DiskFile | undefined;
  #writer: DiskFile | undefined;

  private constructor(options: OpenOptions, facts: FileFacts | undefined) {
    this.#options = options;
    this.#facts = facts;
  }

  /** Made with the first bytes. @throws the file system's error. */
  static async open(options: OpenOptions): Promise<AppendFile> {
    return new AppendFile(options, await options.disk.stat(options.path));
  }

  get sizeBytes(): number {
    return this.#facts?.size ?? 0;
  }

  /** The bytes from `position` on, fewer only at the end. Not while anything is written. @throws the file system's error. */
  async read(position: number, length: number): Promise<Buffer> {
    if (!this.#facts) return Buffer.alloc(0);
    this.#reader ??= await this.#options.disk.open(this.#options.path, "read");
    return await this.#reader.read(position, length);
  }

  /**
   * Resolves when the bytes are on disk, in the file that the path names. A failure leaves as little of them as the disk allows.
   * @throws {FileRemovedError} when the path names another file or none; the file system's error.
   */
  async append(bytes: Uint8Array): Promise<void> {
    // A new file is on disk only once its folder is: replacing sees to that.
    if (!this.#facts) return await this.replace([bytes]);
    const writer = await this.#openWriter();
    try {
      await writer.write(bytes);
      await writer.datasync();
    } catch (error) {
      await writer.truncate(this.sizeBytes).catch(() => {}); // the first failure says more
      throw error;
    }
    const { id, size } = this.#facts;
    this.#facts = { id, size: size + bytes.length };
    if (!(await this.isInPlace())) throw new FileRemovedError();
  }

  /**
   * Replaces everything at once: after a crash at any instant the file holds the old content or the new one. The parts are taken
   * and written one after the other. A folder that was removed is made again. @throws the file system's error.
   */
  async replace(parts: Iterable<Uint8Array>): Promise<void> {
    let size = 0;
    const counted = function* () {
      for (const part of parts) {
        size += part.length;
        yield part;
      }
    };
    await this.#options.replaceFile(counted());
    await this.close(); // the handles are of the file that was
    const { disk, path } = this.#options;
    this.#facts = { id: (await disk.stat(path))?.id ?? "", size };
  }

  /** False when the path names another file than the one that is written to, or none. @throws the file system's error. */
  async isInPlace(): Promise<boolean> {
    const { disk, path } = this.#options;
    const named = await disk.stat(path);
    return named?.id === this.#facts?.id && named?.size === this.#facts?.size;
  }

  /** Closes what is open. What comes later opens it again. */
  async close(): Promise<void> {
    const open = [this.#reader, this.#writer];
    this.#reader = undefined;
    this.#writer = undefined;
    for (const file of open) await file?.close();
  }

  /** Late: a disk that is read-only now can still be read from. */
  async #openWriter(): Promise<DiskFile> {
    if (this.#writer) return this.#writer;
    try {
      this.#writer = await this.#options.disk.open(this.#options.path, "append");
      return this.#writer;
    } catch (error) {
      if (codeOf(error) === "ENOENT") throw new FileRemovedError();
      throw error;
    }
  }
}
