// The list of PFs as a file of this machine that may change while we run.
import { dirname } from "node:path";
import type { Clock } from "../async/index.ts";
import { readSmallFile, watchFolder } from "../kernel/index.ts";
import { PF_CONFIG_MEBIBYTES } from "../pci/index.ts";
import type { PfConfigFile } from "./node-watch.ts";

/**
 * Watches the file by its folder: a ConfigMap changes by a link that is put in its place, an editor by a new file. It need
 * not be there.
 */
export function openPfConfigFile(path: string, clock: Clock): PfConfigFile & { close(): void } {
  const folder = watchFolder(dirname(path), clock);
  return {
    path,
    read: () => readSmallFile(path, PF_CONFIG_MEBIBYTES),
    onChange: (listener) => folder.onChange(listener),
    close: () => folder.close(),
  };
}
