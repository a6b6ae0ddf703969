import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import test from "node:test";

interface Packed {
  readonly files: readonly { readonly path: string; readonly size: number }[];
}

test("the package holds the built program and nothing else, asks for what is not in it, and runs", (t) => {
  const folder = mkdtempSync(join(tmpdir(), "forwarder-package-"));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  for (const path of ["src", "tools", "package.json", "README.md", "LICENSE"]) {
    cpSync(path, join(folder, path), { recursive: true, filter: (from) => !from.includes("node_modules") });
  }
  symlinkSync(join(process.cwd(), "node_modules"), join(folder, "node_modules"));
  execFileSync(process.execPath, ["tools/build.ts"], { cwd: folder, stdio: "pipe" });
  const pack = execFileSync("npm", ["pack", "--dry-run", "--json", "--ignore-scripts"], { cwd: folder, stdio: "pipe" });
  const [packed] = JSON.parse(pack.toString()) as [Packed];
  const paths = packed.files.map(({ path }) => path);
  const strange = paths.filter((path) => !/^(README\.md|LICENSE|package\.json|dist\/.*\.(mjs|txt))$/.test(path));
  assert.deepEqual(strange, []);
  assert.ok(paths.includes("dist/forwarder.mjs"));
  const bytes = packed.files.reduce((sum, { size }) => sum + size, 0);
  assert.ok(bytes < 2.5e6, `the package has grown to ${bytes} bytes: what came in?`);

  const manifest = JSON.parse(readFileSync(join(folder, "package.json"), "utf8")) as {
    dependencies: object;
    version: string;
  };
  const built = paths.filter((path) => path.endsWith(".mjs")).map((path) => readFileSync(join(folder, path), "utf8"));
  const queried = new Set(
    built.flatMap((text) => [...text.matchAll(/^import .* from "([^".][^"]*)";$/gm)].map(([, name]) => name)),
  );
  const packages = [...queried].filter((name) => !name?.startsWith("node:"));
  assert.deepEqual(
    packages.filter((name) => !process.getBuiltinModule(name ?? "")),
    Object.keys(manifest.dependencies),
  );
  // A word on the command line must not wait for the forwarder to be loaded.
  const atOnce = loadedAtOnce(folder, "dist/forwarder.mjs");
  const bytesAtOnce = [...atOnce].reduce((sum, path) => sum + readFileSync(join(folder, path)).length, 0);
  assert.ok(bytesAtOnce < 50_000, `${[...atOnce]} are loaded by every command, ${bytesAtOnce} bytes`);

  const output = execFileSync(process.execPath, ["dist/forwarder.mjs", "--version"], { cwd: folder }).toString();
  assert.equal(output, `forwarder ${manifest.version}\n`);
});

/** The part and all that it imports before it runs. */
function loadedAtOnce(folder: string, part: string, seen = new Set<string>()): ReadonlySet<string> {
  if (seen.has(part)) return seen;
  seen.add(part);
  const text = readFileSync(join(folder, part), "utf8");
  for (const [, path = ""] of text.matchAll(/^(?:import|} from).*"(\.[^"]+)";$/gm)) {
    loadedAtOnce(folder, join(dirname(part), path), seen);
  }
  return seen;
}
