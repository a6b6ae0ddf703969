import { mkdirSync, mkdtempSync, rmdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { lockFolder, tryLockFolder } from "../../src/kernel/index.ts";
import type { HostLocks } from "../../src/node/index.ts";

/** The kernel's own locks, on folders that stand for those of the physical functions in sysfs. */
export function locksIn(folder: string): HostLocks {
  return { folder: lockFolder, pf: (address) => tryLockFolder(join(folder, address)) };
}

/** A real folder with one for each physical function that is there. */
export class PfLockFolders {
  readonly folder = mkdtempSync(join(tmpdir(), "nsm-card-"));
  readonly locks = locksIn(this.folder);

  add(address: string): void {
    mkdirSync(join(this.folder, address));
  }

  remove(address: string): void {
    rmdirSync(join(this.folder, address));
  }

  close(): void {
    rmSync(this.folder, { recursive: true });
  }
}
