import { mkdirSync, mkdtempSync, rmdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { lockFolder, tryLockFolder } from "../../src/kernel/index.ts";
import type { HostLocks } from "../../src/node/index.ts";

/** The kernel's own locks, on folders that stand for those of the physical functions in sysfs. */
export function locksIn(folder: string): HostLocks {
  return { folder: lockFolder, pf: (address) => tryLockFolder(join(folder, address)) };
}

/** Locks of the PCI functions that are there. */
export interface PfLocks {
  /** What stands for them on the disk. */
  readonly folder: string;
  readonly locks: HostLocks;
  add(address: string): void;
  remove(address: string): void;
  close(): void;
}

/** A real folder with one for each physical function that is there. */
export class PfLockFolders implements PfLocks {
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
