// npm run build: the program as one file, dist/forwarder.mjs. Only koffi stays a package, because it brings a native library.
import { chmodSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { build } from "esbuild";
import { bundleOptions, runtimeFlags } from "./bundle-options.ts";

rmSync("dist", { recursive: true, force: true });
const outfile = "dist/forwarder.mjs";
await build({ ...bundleOptions, entryPoints: { forwarder: "src/main.ts" }, outdir: "dist" });
writeFileSync(outfile, `#!/usr/bin/env -S node ${runtimeFlags.join(" ")}\n${readFileSync(outfile, "utf8")}`);
chmodSync(outfile, 0o755);
