import { createHash } from "node:crypto";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync, statSync } from "node:fs";
import { basename, join } from "node:path";
import { build, stop } from "esbuild";
import { bundleOptions } from "./bundle-options.ts";

/** All that a program may be made of: what changes here makes another bundle. */
const SOURCES = ["src", "sandbox", "test", "bench", "interop", "tools/bundle-options.ts", "package-lock.json"];

/** A bundle of other sources may be in use by a run that began before they were changed. */
const KEPT_MS = 86_400_000;

/**
 * Bundles a program around the forwarder as `npm run build` does the forwarder, once for each state of the sources: each later call
 * gets the same, in the same place, where Node finds what it has compiled of it. Run from its sources it would carry the compiler that
 * strips their types, which costs memory and time that the shipped program does not. Returns the path of its main module.
 */
export async function bundleProgram(root: string, entry: string): Promise<string> {
  // Beneath the project: koffi stays a package and must be found from there.
  const all = join(root, "node_modules", ".cache", "programs");
  const name = basename(entry, ".ts");
  const folder = join(all, `${name}-${stateOf(root, entry)}`);
  if (!existsSync(folder)) {
    mkdirSync(all, { recursive: true });
    removeOld(all, name);
    await bundleInto(folder, join(root, entry));
  }
  return join(folder, "program.mjs");
}

async function bundleInto(folder: string, entryPoint: string): Promise<void> {
  const made = mkdtempSync(`${folder}.`);
  try {
    await build({ ...bundleOptions, entryPoints: { program: entryPoint }, outdir: made });
    renameSync(made, folder);
  } catch (error) {
    rmSync(made, { recursive: true });
    if (!existsSync(folder)) throw error; // another process has made it meanwhile
  } finally {
    // It stays as a process of its own otherwise, whose pipes a test would leave open. One bundle is made at a time.
    await stop();
  }
}

/** Another one for other sources; the same for the same. */
function stateOf(root: string, entry: string): string {
  const hash = createHash("sha256").update(entry);
  for (const source of SOURCES) {
    const path = join(root, source);
    const files = statSync(path).isDirectory()
      ? readdirSync(path, { recursive: true, withFileTypes: true })
          .filter((one) => one.isFile())
          .map((one) => join(one.parentPath, one.name))
      : [path];
    for (const file of files.sort()) {
      const { mtimeMs, size } = statSync(file);
      hash.update(`${file} ${mtimeMs} ${size}\n`);
    }
  }
  return hash.digest("hex").slice(0, 16);
}

function removeOld(all: string, name: string): void {
  for (const one of readdirSync(all)) {
    const path = join(all, one);
    if (!one.startsWith(`${name}-`) || Date.now() - statSync(path).mtimeMs < KEPT_MS) continue;
    rmSync(path, { recursive: true, force: true });
  }
}
