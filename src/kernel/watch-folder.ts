import { type FSWatcher, lstatSync, watch } from "node:fs";
import { join } from "node:path";
import type { Clock, Timer } from "../async/index.ts";
import { guarded } from "../async/index.ts";

/** A folder where others make and remove files. */
export interface WatchedFolder {
  readonly path: string;
  /** Distinguishes a file from another one that takes its name later; undefined when there is none. */
  identity(name: string): string | undefined;
  /** Calls back after something in the folder was made, removed or renamed. Returns how to stop. */
  onChange(listener: () => void): () => void;
  close(): void;
}

/** A folder that is not there cannot be watched: we try again after this time. */
const RETRY_MS = 1000;

/**
 * Watches a folder by inotify, through its own removal and return. Events can be lost (the kernel's queue is bounded), so
 * a caller that must not miss a change also reads `identity` from time to time.
 */
export function watchFolder(path: string, clock: Clock): WatchedFolder {
  const listeners = new Set<() => void>();
  const notify = guarded("file-watch", () => {
    for (const listener of [...listeners]) listener();
  });
  let watcher: FSWatcher | undefined;
  let watched: string | undefined;
  let timer: Timer | undefined;
  /** The folder may have been removed and made again: the old watch then stays silent for ever. */
  const ensure = () => {
    const now = identityOf(path, "folder");
    if (now !== watched) {
      watcher?.close();
      watcher = now === undefined ? undefined : start(path, notify);
      watched = watcher === undefined ? undefined : now;
      if (watched !== undefined) notify();
    }
    // Without a watch (no inotify instance or watch left for this user) what it would say is assumed at each try.
    if (now !== undefined && watcher === undefined) notify();
  };
  const again = guarded("file-watch", () => {
    timer = clock.after(RETRY_MS, again); // before anything that could fail
    ensure();
  });
  again();
  return {
    path,
    identity: (name) => identityOf(join(path, name)),
    onChange(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    close() {
      timer?.cancel();
      watcher?.close();
      listeners.clear();
    },
  };
}

function start(path: string, notify: () => void): FSWatcher | undefined {
  try {
    const watcher = watch(path, { persistent: false }, notify);
    watcher.on(
      "error",
      guarded("file-watch", () => watcher.close()),
    );
    return watcher;
  } catch {
    return undefined; // removed in between, or no inotify watches left
  }
}

/**
 * The same for as long as it is not made again: inode numbers are given out again at once, the time of birth is not, and no chmod
 * changes it. A folder's other times change with every file in it.
 */
function identityOf(path: string, kind?: "folder"): string | undefined {
  try {
    const found = lstatSync(path, { bigint: true, throwIfNoEntry: false });
    if (!found || (kind === "folder" && !found.isDirectory())) return undefined;
    return `${found.dev}:${found.ino}:${found.birthtimeNs}`;
  } catch {
    return undefined; // EIO, ELOOP, EACCES on the way: tried again like one that is missing
  }
}
