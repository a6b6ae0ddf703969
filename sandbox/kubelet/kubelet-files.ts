import { lstatSync, mkdirSync, readdirSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";

/** What a kubelet does to the files of its folders. */
export interface KubeletFiles {
  /** Names of the files that are there; folders are left out. */
  list(folder: string): readonly string[];
  /** Makes the folder where it is missing, and removes these files. */
  prepare(folder: string, remove: readonly string[]): void;
  /** Replaces a file at once. */
  replace(folder: string, name: string, text: string): void;
}

/** Those of the machine. */
export const diskFiles: KubeletFiles = {
  list(folder) {
    mkdirSync(folder, { recursive: true });
    return readdirSync(folder).filter((name) => !lstatSync(join(folder, name)).isDirectory());
  },
  prepare(folder, remove) {
    mkdirSync(folder, { recursive: true });
    for (const name of remove) rmSync(join(folder, name), { force: true });
  },
  replace(folder, name, text) {
    const path = join(folder, name);
    writeFileSync(`${path}.tmp`, text);
    renameSync(`${path}.tmp`, path);
  },
};
