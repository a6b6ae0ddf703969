// How the program is bundled and run. `npm run bench` measures it in the same form.
import { pathToFileURL } from "node:url";
import type { BuildOptions, Plugin } from "esbuild";

/**
 * Flags that must be there before the program starts. A server that talks much lets Node's young generation grow to several
 * times what it needs, and the container's limit is measured with these; docs/decisions/005-memory-flags.md has the figures.
 */
export const runtimeFlags: readonly string[] = [
  "--max-semi-space-size=4",
  "--max-old-space-size=256",
  "--optimize-for-size",
];

/** What the module's constants are when it is built, in place of the code that makes them: it may read files that are not shipped. */
function frozen(path: RegExp): Plugin {
  return {
    name: "frozen",
    setup(build) {
      build.onLoad({ filter: path }, async (module) => {
        const constants = Object.entries(await import(pathToFileURL(module.path).href));
        return {
          contents: constants.map(([name, value]) => `export const ${name} = ${JSON.stringify(value)};`).join("\n"),
        };
      });
    },
  };
}

/** All but the entry points and where to. */
export const bundleOptions: BuildOptions = {
  outExtension: { ".js": ".mjs" },
  bundle: true,
  splitting: true, // what is loaded on demand stays out of the way until then
  chunkNames: "parts/[name]-[hash]",
  platform: "node",
  target: "node24",
  format: "esm",
  external: ["koffi"],
  plugins: [frozen(/[/]src[/]admin[/]page-files[.]ts$/)],
  sourcemap: "linked",
  sourcesContent: false,
  legalComments: "linked",
  logLevel: "warning",
  // Packages in the older module form ask for `require`, which an ES module does not have by itself.
  banner: {
    js: 'import { createRequire as __createRequire } from "node:module"; const require = __createRequire(import.meta.url);',
  },
};
