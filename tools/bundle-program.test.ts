import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { pathToFileURL } from "node:url";
import { bundleProgram } from "./bundle-program.ts";

test("bundleProgram() puts the status page's files into the program, which has them nowhere else to read", async (t) => {
  const bundle = await bundleProgram(".", "src/admin/page-files.ts");
  t.after(() => bundle.remove());
  const { pageScript, pageStyle } = await import(pathToFileURL(bundle.path).href);
  assert.equal(pageScript, readFileSync("src/admin/page/page.js", "utf8"));
  assert.equal(pageStyle, readFileSync("src/admin/page/page.css", "utf8"));
});
