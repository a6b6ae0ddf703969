import { dirname, join } from "node:path";
import { messageOf, type Random, systemRandom } from "../async/index.ts";
import { AppendFile } from "./append-file.ts";
import { type Disk, type DiskFile, linuxDisk } from "./disk.ts";
import { codeOf } from "./errno.ts";

/** Of the host. */
interface StateFolderParts {
  readonly disk: Disk;
  /** Names files that are not in their place yet. */
  readonly random: Random;
}

/**
 * Opens the folder, making it when it is missing (mode 0700).
 * @throws the file system's error, for example EROFS or EACCES.
 */
export async function openStateFolder(
  path: string,
  { disk, random }: StateFolderParts = { disk: linuxDisk, random: systemRandom },
): Promise<StateFolder> {
  await makeFolder(disk, path);
  // A disk that has become read-only can still be read, and its clients still be served.
  await disk.restrict(path).catch((error: unknown) => {
    if (codeOf(error) !== "EROFS") throw error;
  });
  return new StateFolder(path, { disk, random });
}

/**
 * The folder on the host where the forwarder keeps what must outlive it. Only root may read it. When it is removed while we run, it
 * is made again with the next replacement, and so are the other files that were read or replaced here.
 */
export class StateFolder {
  readonly path: string;
  readonly #parts: StateFolderParts;
  /** What the files say that were read or replaced: a few lines. */
  readonly #texts = new Map<string, string>();

  constructor(path: string, parts: StateFolderParts) {
    this.path = path;
    this.#parts = parts;
  }

  /** The text of a file, or undefined when there is none. */
  async read(name: string): Promise<string | undefined> {
    const text = await readText(this.#parts.disk, this.#beneath(name));
    if (text !== undefined) this.#texts.set(name, text);
    return text;
  }

  /** Replaces a file at once: after a crash at any instant it holds the old text or the new one, never a mixture. */
  async replace(name: string, text: string): Promise<void> {
    await this.#write(name, text);
    this.#texts.set(name, text);
  }

  /** Opens a file to append to; made with the first bytes. @throws when it cannot be read. */
  async openAppend(name: string): Promise<AppendFile> {
    const path = this.#beneath(name);
    const replaceWhole = async (parts: Iterable<Uint8Array>) => {
      await replaceFile(this.#parts, this.path, { file: path, parts });
      await this.#restoreTexts();
    };
    return await AppendFile.open({ path, disk: this.#parts.disk, replaceFile: replaceWhole });
  }

  /** Where the file has gone, the others have mostly gone with it. */
  async #restoreTexts(): Promise<void> {
    for (const [name, text] of this.#texts) {
      if (!(await this.#parts.disk.stat(this.#beneath(name)))) await this.#write(name, text);
    }
  }

  async #write(name: string, text: string): Promise<void> {
    await replaceFile(this.#parts, this.path, { file: this.#beneath(name), parts: [Buffer.from(text)] });
  }

  #beneath(name: string): string {
    if (!/^[a-z0-9][a-z0-9.-]*$/.test(name)) throw new TypeError(`Cannot use "${name}" as the name of a state file`);
    return join(this.path, name);
  }
}

async function makeFolder(disk: Disk, folder: string): Promise<void> {
  if (await disk.stat(folder)) return;
  await disk.makeFolder(folder);
  await disk.syncFolder(dirname(folder)); // Its name is on disk only then.
}

async function readText(disk: Disk, file: string): Promise<string | undefined> {
  const facts = await disk.stat(file);
  if (!facts) return undefined;
  const opened = await disk.open(file, "read");
  try {
    return (await opened.read(0, facts.size)).toString();
  } finally {
    await opened.close();
  }
}

interface Replacement {
  readonly file: string;
  readonly parts: Iterable<Uint8Array>;
}

async function replaceFile(
  { disk, random }: StateFolderParts,
  folder: string,
  { file, parts }: Replacement,
): Promise<void> {
  const fresh = `${file}.${random.uuid()}`;
  const handle = await createIn(disk, folder, fresh);
  try {
    try {
      for (const part of parts) await handle.write(part);
      await handle.sync();
    } finally {
      await handle.close();
    }
    await disk.rename(fresh, file);
  } catch (error) {
    await disk.unlink(fresh).catch(() => {}); // the first failure says more
    throw error;
  }
  // The rename itself is on disk only once the folder is: fsync(2), notes on directories.
  await disk.syncFolder(folder);
}

/** A folder that was removed while we ran is made again. One that is a mount cannot be: only the mount is left of it. */
async function createIn(disk: Disk, folder: string, file: string): Promise<DiskFile> {
  try {
    return await disk.open(file, "create");
  } catch (error) {
    if (codeOf(error) !== "ENOENT") throw error;
  }
  await makeFolder(disk, folder);
  try {
    return await disk.open(file, "create");
  } catch (cause) {
    const what = `${folder} was removed, and cannot be made again (${messageOf(cause)})`;
    throw new Error(`${what}; make it, then restart the pod`, { cause });
  }
}
