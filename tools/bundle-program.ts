import { mkdirSync, rmSync } from "node:fs";
import { basename, join } from "node:path";
import { build, stop } from "esbuild";
import { bundleOptions } from "./bundle-options.ts";

/** A program in the form in which the forwarder is shipped. */
export interface Bundle {
  readonly path: string;
  remove(): void;
}

/**
 * Bundles a program around the forwarder as `npm run build` does the forwarder. Run from its sources it would carry the
 * compiler that strips their types, which costs memory and time that the shipped program does not.
 */
export async function bundleProgram(root: string, entry: string): Promise<Bundle> {
  // Beneath the project: koffi stays a package and must be found from there.
  const folder = join(root, "node_modules", ".cache", `${basename(entry, ".ts")}-${process.pid}`);
  mkdirSync(folder, { recursive: true });
  const remove = () => rmSync(folder, { recursive: true, force: true });
  try {
    await build({ ...bundleOptions, entryPoints: { program: join(root, entry) }, outdir: folder });
  } catch (error) {
    remove();
    throw error;
  } finally {
    // It stays as a process of its own otherwise, whose pipes a test would leave open. One bundle is made at a time.
    await stop();
  }
  return { path: join(folder, "program.mjs"), remove };
}
