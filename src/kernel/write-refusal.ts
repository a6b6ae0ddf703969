import { constants } from "node:fs";
import { access } from "node:fs/promises";

/**
 * Why this process may not write to what is at a path, as the errno's name: EROFS, EACCES, ENOENT; undefined when it may.
 * Writes nothing.
 */
export async function writeRefusal(path: string): Promise<string | undefined> {
  try {
    await access(path, constants.W_OK);
    return undefined;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code ?? String(error);
  }
}
