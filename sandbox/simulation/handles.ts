import { openSync, readdirSync, readlinkSync, unlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Fd } from "../../src/kernel/index.ts";

const PREFIX = "nsm-simulated-";
let made = 0;

/**
 * Descriptors that stand for sockets and namespaces. They are real, so that a leak is one; behind each is an empty file in the folder for
 * temporary files, which loses its name at once.
 */
export class Handles {
  readonly #kept: Fd[] = [];

  /** Another inode than all others, for as long as the simulation lasts. It stays ours: who needs one duplicates it. */
  make(): Fd {
    const path = join(tmpdir(), `${PREFIX}${process.pid}-${made++}`);
    const fd = Fd.own(openSync(path, "wx"));
    unlinkSync(path);
    this.#kept.push(fd);
    return fd;
  }

  /** Closes all of them; duplicates stay open, and `openHandles` finds them. */
  close(): void {
    for (const fd of this.#kept.splice(0)) fd.close();
  }
}

/** Numbers of the descriptors that stand for something simulated. */
export function openHandles(): readonly number[] {
  return readdirSync("/proc/self/fd").filter(isHandle).map(Number);
}

function isHandle(number: string): boolean {
  try {
    return readlinkSync(`/proc/self/fd/${number}`).includes(`/${PREFIX}`);
  } catch {
    return false; // the descriptor of the listing itself
  }
}
