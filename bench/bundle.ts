import { mkdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { build } from "esbuild";
import { bundleOptions } from "../tools/bundle-options.ts";

/** A program in the form in which the forwarder is shipped. */
export interface Bundle {
  readonly path: string;
  remove(): void;
}

/**
 * Bundles the forwarder's process as `npm run build` does. Measured from its sources it would carry the compiler that strips
 * their types, which costs memory and time that the shipped program does not.
 */
export async function bundleNodeProcess(root: string): Promise<Bundle> {
  // Beneath the project: koffi stays a package and must be found from there.
  const folder = join(root, "node_modules", ".cache", `bench-${process.pid}`);
  mkdirSync(folder, { recursive: true });
  const remove = () => rmSync(folder, { recursive: true, force: true });
  try {
    await build({ ...bundleOptions, entryPoints: { node: join(root, "bench", "node-process.ts") }, outdir: folder });
  } catch (error) {
    remove();
    throw error;
  }
  return { path: join(folder, "node.mjs"), remove };
}
