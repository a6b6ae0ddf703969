// npm run build: the program as one file, dist/forwarder.mjs. Only koffi stays a package, because it brings a native library.
import { chmodSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { build } from "esbuild";

/**
 * Flags that must be there before the program starts. A server that talks much lets Node's young generation grow to several
 * times what it needs, and the container's limit is measured with these; docs/decisions/005-memory-flags.md has the figures.
 */
const FLAGS = "--max-semi-space-size=4 --max-old-space-size=256";

rmSync("dist", { recursive: true, force: true });
const outfile = "dist/forwarder.mjs";
await build({
  entryPoints: { forwarder: "src/main.ts" },
  outdir: "dist",
  outExtension: { ".js": ".mjs" },
  bundle: true,
  splitting: true, // what is loaded on demand stays out of the way until then
  chunkNames: "parts/[name]-[hash]",
  platform: "node",
  target: "node24",
  format: "esm",
  external: ["koffi"],
  sourcemap: "linked",
  sourcesContent: false,
  legalComments: "linked",
  logLevel: "warning",
  // Packages in the older module form ask for `require`, which an ES module does not have by itself.
  banner: {
    js: 'import { createRequire as __createRequire } from "node:module"; const require = __createRequire(import.meta.url);',
  },
});
writeFileSync(outfile, `#!/usr/bin/env -S node ${FLAGS}\n${readFileSync(outfile, "utf8")}`);
chmodSync(outfile, 0o755);
