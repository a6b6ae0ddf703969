import { basename, dirname } from "node:path";
import { type Clock, guarded } from "../../src/async/index.ts";
import type { HostFiles, WatchedFolder } from "../../src/kernel/index.ts";
import type { KubeletFiles } from "../kubelet/kubelet-files.ts";
import { pretendFiles, textOf } from "../machine/pretend-files.ts";

interface MemoryFile {
  readonly identity: string;
  /** Undefined of a socket. */
  readonly text: string | undefined;
}

/** Folders that processes of the node share: kubelet's, with its files and the sockets of its plugins. Who watches one hears of it later. */
export class MemoryFolders implements KubeletFiles {
  readonly #files = new Map<string, MemoryFile>();
  readonly #watchers = new Map<string, Set<() => void>>();
  readonly #notifyLater: (notify: () => void) => void;
  #made = 0;

  constructor(notifyLater: (notify: () => void) => void) {
    this.#notifyLater = notifyLater;
  }

  /** Answers by what the file is told from another one of its name. */
  put(path: string, text?: string): string {
    const identity = String(this.#made++);
    this.#files.set(path, { identity, text });
    this.#notify(path);
    return identity;
  }

  /** Nothing to do where the path names another file by now, or none. */
  remove(path: string, identity = this.identity(path)): void {
    if (identity === undefined || this.identity(path) !== identity) return;
    this.#files.delete(path);
    this.#notify(path);
  }

  identity(path: string): string | undefined {
    return this.#files.get(path)?.identity;
  }

  list(folder: string): readonly string[] {
    return [...this.#files.keys()].filter((path) => dirname(path) === folder).map((path) => basename(path));
  }

  prepare(folder: string, remove: readonly string[]): void {
    for (const name of remove) this.remove(`${folder}/${name}`);
  }

  replace(folder: string, name: string, text: string): void {
    this.put(`${folder}/${name}`, text);
  }

  /** As `Host.openFolder`. */
  open(path: string, clock: Clock): HostFiles {
    const folder = plain(path);
    const names = () => this.list(folder);
    const child = (name: string) => {
      const text = this.#files.get(`${folder}/${name}`)?.text;
      return text === undefined ? undefined : textOf(text);
    };
    return pretendFiles({ kind: "folder", names, child }, { clock, slowness: 1, before: async () => {} });
  }

  /** As `Host.watchFolder`. */
  watch(path: string): WatchedFolder {
    const folder = plain(path);
    const listeners = new Set<() => void>();
    const notify = guarded("file-watch", () => {
      for (const listener of [...listeners]) listener();
    });
    const watchers = this.#watchers.get(folder) ?? new Set();
    this.#watchers.set(folder, watchers);
    watchers.add(notify);
    return {
      path: folder,
      identity: (name) => this.identity(`${folder}/${name}`),
      onChange(listener) {
        listeners.add(listener);
        return () => listeners.delete(listener);
      },
      close() {
        watchers.delete(notify);
        listeners.clear();
      },
    };
  }

  #notify(path: string): void {
    const watchers = this.#watchers.get(dirname(path)) ?? new Set();
    for (const watcher of watchers) this.#notifyLater(() => watchers.has(watcher) && watcher());
  }
}

function plain(path: string): string {
  return path.replace(/\/+$/, "");
}
