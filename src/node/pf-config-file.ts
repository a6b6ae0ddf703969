// The list of PFs as a file of this machine that may change while we run.
import { basename, dirname } from "node:path";
import type { Clock } from "../async/index.ts";
import { BlockingWrites, openHostFiles, watchFolder } from "../kernel/index.ts";
import type { PfConfigFile } from "./node-watch.ts";

/**
 * Watches the file by its folder: a ConfigMap changes by a link that is put in its place, an editor by a new file. It need
 * not be there.
 */
export function openPfConfigFile(path: string, clock: Clock): PfConfigFile & { close(): void } {
  const folder = watchFolder(dirname(path), clock);
  const files = openHostFiles(dirname(path), new BlockingWrites());
  return {
    path,
    read: () => files.readText(basename(path)),
    onChange: (listener) => folder.onChange(listener),
    close: () => folder.close(),
  };
}
