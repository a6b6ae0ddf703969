import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { test } from "node:test";
import { pathToFileURL } from "node:url";
import { bundleProgram } from "./bundle-program.ts";

test("bundleProgram() puts the status page's files into the program, which has them nowhere else to read", async () => {
  const { pageScript, pageStyle } = await import(
    pathToFileURL(await bundleProgram(".", "src/admin/page-files.ts")).href
  );
  assert.equal(pageScript, readFileSync("src/admin/page/page.js", "utf8"));
  assert.equal(pageStyle, readFileSync("src/admin/page/page.css", "utf8"));
});

test("bundleProgram() bundles a program again where a source has changed, and not otherwise", async (t) => {
  const root = mkdtempSync(join(tmpdir(), "bundle-"));
  t.after(() => rmSync(root, { recursive: true }));
  const write = (path: string, text: string) => {
    mkdirSync(dirname(join(root, path)), { recursive: true });
    writeFileSync(join(root, path), text);
  };
  for (const folder of ["sandbox", "test", "bench", "interop"]) mkdirSync(join(root, folder));
  for (const path of ["tools/bundle-options.ts", "package-lock.json"]) write(path, "");
  write("src/deep/word.ts", `export const word: string = "one";`);
  write("src/main.ts", `import { word } from "./deep/word.ts"; console.log(word);`);
  const bundle = () => bundleProgram(root, "src/main.ts");
  const says = (path: string) => execFileSync(process.execPath, [path], { encoding: "utf8" });
  const first = await bundle();
  assert.equal(says(first), "one\n");
  writeFileSync(first, `console.log("kept")`);
  assert.deepEqual([await bundle(), says(first)], [first, "kept\n"]);
  write("src/deep/word.ts", `export const word: string = "another";`);
  assert.equal(says(await bundle()), "another\n");
});
