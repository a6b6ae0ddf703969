// What a journal has of VFs that are not as the host had them, with a map for its disk.
import type { StoredEntry } from "../../src/mechanisms/journal-entries.ts";
import { UnrestoredVfs } from "../../src/mechanisms/unrestored-vfs.ts";
import { silentLog } from "../../src/telemetry/index.ts";

/** As a start finds it. */
export function paperUnrestored(disk = new Map<string, StoredEntry>()): UnrestoredVfs {
  const journal = {
    put: async (key: string, value: StoredEntry) => void disk.set(key, value),
    drop: async (key: string) => void disk.delete(key),
  };
  return new UnrestoredVfs(journal, disk, { log: silentLog });
}
