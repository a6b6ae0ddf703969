import { constants } from "node:fs";
import { access, stat } from "node:fs/promises";
import { codeOf } from "./errno.ts";

/**
 * Why this process may not write to what is at a path, as the errno's name: EROFS, EACCES, ENOENT; undefined when it may.
 * Writes nothing.
 */
export async function writeRefusal(path: string): Promise<string | undefined> {
  try {
    await access(path, constants.W_OK);
    return undefined;
  } catch (error) {
    return codeOf(error) ?? String(error);
  }
}

/** Why this process may make no file in the folder at a path: as `writeRefusal`, and ENOTDIR for what is none. Writes nothing. */
export async function folderRefusal(path: string): Promise<string | undefined> {
  const found = await stat(path).catch(() => undefined); // what cannot be read is refused below, with its own reason
  return found?.isDirectory() === false ? "ENOTDIR" : writeRefusal(path);
}
