import { globSync, readFileSync } from "node:fs";
import { basename, join } from "node:path";
import { LabError } from "./program.ts";

/** A kernel module, ready to be loaded. */
export interface Module {
  readonly name: string;
  readonly bytes: Buffer;
}

/**
 * The modules of an unpacked kernel package with all that they need, in the order in which they can be loaded. One that is
 * built into this kernel is left out.
 */
export async function collectModules(
  folder: string,
  desired: readonly string[],
  unxz: (packed: Buffer) => Promise<Buffer>,
): Promise<readonly Module[]> {
  const files = new Map(globSync("**/*.ko{,.xz}", { cwd: folder }).map((path) => [moduleName(path), path]));
  const builtIn = new Set(readBuiltIn(folder).map(moduleName));
  const loaded = new Map<string, Module>();
  const load = async (name: string) => {
    if (loaded.has(name) || builtIn.has(name)) return;
    const path = files.get(name);
    if (path === undefined) throw new LabError(`The kernel in ${folder} has no module ${name}`);
    const packed = readFileSync(join(folder, path));
    const bytes = path.endsWith(".xz") ? await unxz(packed) : packed;
    for (const needed of dependenciesOf(bytes)) await load(needed);
    loaded.set(name, { name, bytes });
  };
  for (const name of desired) await load(moduleName(name));
  return [...loaded.values()];
}

/** "kernel/drivers/vfio/pci/vfio-pci.ko.xz" → "vfio_pci": the kernel's own spelling. */
function moduleName(path: string): string {
  return basename(path)
    .replace(/\.ko(\.xz)?$/, "")
    .replaceAll("-", "_");
}

function readBuiltIn(folder: string): readonly string[] {
  return globSync("**/modules.builtin", { cwd: folder }).flatMap((path) =>
    readFileSync(join(folder, path), "utf8").trim().split("\n"),
  );
}

/** The entry `depends=` of the section .modinfo: texts that end with a zero byte. */
export function dependenciesOf(module: Buffer): readonly string[] {
  const key = Buffer.from("\0depends=");
  const at = module.indexOf(key);
  if (at < 0) return [];
  const start = at + key.length;
  const names = module.toString("latin1", start, module.indexOf(0, start));
  return names === "" ? [] : names.split(",").map((name) => name.replaceAll("-", "_"));
}
