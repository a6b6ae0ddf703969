import { type FileHandle, open, readFile } from "node:fs/promises";

/** A file that grows at its end and is now and then written anew. One writer. */
export interface AppendFile {
  /** What was in it when it was opened; empty when there was none. */
  readonly found: Buffer;
  readonly sizeBytes: number;
  /** Resolves when the bytes are on disk. A failure leaves as little of them as the disk allows. @throws the file system's error. */
  append(bytes: Uint8Array): Promise<void>;
  /** Replaces everything at once: after a crash at any instant the file holds the old content or the new one. */
  replace(bytes: Uint8Array): Promise<void>;
  close(): Promise<void>;
}

/** Opens a file for appending; `replaceFile` is the folder's way of replacing one. */
export async function openAppendFile(
  path: string,
  replaceFile: (bytes: Uint8Array) => Promise<void>,
): Promise<AppendFile> {
  const before = await readFile(path).catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT") return undefined;
    throw error;
  });
  return new OpenAppendFile(path, before, replaceFile);
}

class OpenAppendFile implements AppendFile {
  readonly found: Buffer;
  readonly #path: string;
  readonly #replaceFile: (bytes: Uint8Array) => Promise<void>;
  #exists: boolean;
  #size: number;
  #handle: FileHandle | undefined;

  constructor(path: string, before: Buffer | undefined, replaceFile: (bytes: Uint8Array) => Promise<void>) {
    this.#path = path;
    this.#replaceFile = replaceFile;
    this.#exists = before !== undefined;
    this.found = before ?? Buffer.alloc(0);
    this.#size = this.found.length;
  }

  get sizeBytes(): number {
    return this.#size;
  }

  async append(bytes: Uint8Array): Promise<void> {
    // A new file is on disk only once its folder is: replacing sees to that.
    if (!this.#exists) return await this.replace(bytes);
    // Opened late: a disk that is read-only now can still be read from.
    this.#handle ??= await open(this.#path, "a", 0o600);
    try {
      await this.#handle.appendFile(bytes);
      await this.#handle.datasync();
      this.#size += bytes.length;
    } catch (error) {
      await this.#handle.truncate(this.#size).catch(() => {}); // the first failure tells more
      throw error;
    }
  }

  async replace(bytes: Uint8Array): Promise<void> {
    await this.#replaceFile(bytes);
    await this.close(); // the handle is of the file that was
    this.#exists = true;
    this.#size = bytes.length;
  }

  async close(): Promise<void> {
    await this.#handle?.close();
    this.#handle = undefined;
  }
}
