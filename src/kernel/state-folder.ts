import { randomUUID } from "node:crypto";
import { chmod, mkdir, open, readFile, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { type AppendFile, openAppendFile } from "./append-file.ts";

/** The folder on the host where the forwarder keeps what must outlive it. Only root may read it. */
export interface StateFolder {
  readonly path: string;
  /** The text of a file, or undefined when there is none. */
  read(name: string): Promise<string | undefined>;
  /** Replaces a file at once: after a crash at any instant it holds the old text or the new one, never a mixture. */
  replace(name: string, text: string): Promise<void>;
  /** Opens a file to append to; made with the first bytes. @throws when it cannot be read. */
  openAppend(name: string): Promise<AppendFile>;
}

/**
 * Opens the folder, making it when it is missing (mode 0700).
 * @throws the file system's error, for example EROFS or EACCES.
 */
export async function openStateFolder(path: string): Promise<StateFolder> {
  await mkdir(path, { recursive: true, mode: 0o700 });
  // A disk that has become read-only can still be read, and its clients still be served.
  await chmod(path, 0o700).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== "EROFS") throw error;
  });
  return {
    path,
    async read(name) {
      try {
        return await readFile(beneath(path, name), "utf8");
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
        throw error;
      }
    },
    replace: (name, text) => replaceFile(path, beneath(path, name), text),
    openAppend(name) {
      const file = beneath(path, name);
      return openAppendFile(file, (bytes) => replaceFile(path, file, bytes));
    },
  };
}

function beneath(folder: string, name: string): string {
  if (!/^[a-z0-9][a-z0-9.-]*$/.test(name)) throw new TypeError(`Cannot use "${name}" as the name of a state file`);
  return join(folder, name);
}

async function replaceFile(folder: string, file: string, content: string | Uint8Array): Promise<void> {
  const fresh = `${file}.${randomUUID()}`;
  try {
    const handle = await open(fresh, "wx", 0o600);
    try {
      await handle.writeFile(content);
      await handle.sync();
    } finally {
      await handle.close();
    }
    await rename(fresh, file);
  } catch (error) {
    await rm(fresh, { force: true });
    throw error;
  }
  // The rename itself is on disk only once the folder is: fsync(2), notes on directories.
  const handle = await open(folder, "r");
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}
