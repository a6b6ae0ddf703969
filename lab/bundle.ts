import { mkdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { build } from "esbuild";
import { bundleOptions } from "../tools/bundle-options.ts";
import { runProgram } from "./prepare/program.ts";
import { realTests } from "./real-tests.ts";

/**
 * Builds the forwarder as it is shipped, and the guest's own program with the pretend peers in it: where every instruction is
 * emulated, reading hundreds of files takes longer than all scenarios.
 * @returns the path of the guest's program.
 */
export async function buildPrograms(root: string, cache: string): Promise<string> {
  await runProgram(process.execPath, [join(root, "tools", "build.ts")], { cwd: root });
  const folder = join(cache, "build");
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  await build({
    ...bundleOptions,
    entryPoints: {
      guest: join(root, "lab", "guest", "main.ts"),
      ...Object.fromEntries(realTests.map((name) => [`real/${name}`, join(root, "test", "real", `${name}.test.ts`)])),
    },
    outdir: folder,
    sourcemap: false,
  });
  return join(folder, "guest.mjs");
}
