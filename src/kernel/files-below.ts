import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { Errno } from "./errno.ts";
import { KernelError } from "./error.ts";
import { attempt } from "./host-files.ts";

/**
 * Paths of the files in a folder and those below, sorted. No link to a folder is followed, and names that begin with ".." are left out:
 * kubelet keeps the versions of what it mounts in such.
 * @param most how many entries may be read
 * @throws {KernelError} ENOENT when there is no such folder, EFBIG with a detail when it has more entries; else the kernel's errno
 */
export async function filesBelow(folder: string, most: number): Promise<readonly string[]> {
  const op = `list ${folder}`;
  return await attempt(op, async () => {
    const files: string[] = [];
    const waiting = [folder];
    let seen = 0;
    for (let next = waiting.pop(); next !== undefined; next = waiting.pop()) {
      for (const entry of await readdir(next, { withFileTypes: true })) {
        seen++;
        if (seen > most) throw new KernelError(op, Errno.EFBIG, `there are more than ${most} files in it`);
        if (entry.name.startsWith("..")) continue;
        const path = join(next, entry.name);
        if (entry.isDirectory()) waiting.push(path);
        else files.push(path);
      }
    }
    return files.sort();
  });
}
