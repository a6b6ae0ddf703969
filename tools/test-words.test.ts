import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { globSync, readFileSync } from "node:fs";
import test from "node:test";
import { chooseFiles, usage } from "./test-words.ts";

const files = globSync("test/{sandbox,real}/**/*.test.ts");

function ran(...words: readonly string[]) {
  const args = ["--disable-warning=ExperimentalWarning", "tools/test.ts", ...words];
  const { status, stdout, stderr } = spawnSync(process.execPath, args, { encoding: "utf8" });
  return [status, stdout, stderr];
}

test("npm test with words that no test has runs none, and says what words are", () => {
  const said =
    "no test matches sandbox/nowhere, real/nothing; " +
    "words are parts of paths below test/sandbox and test/real, for example sandbox/restart\n";
  assert.deepEqual(ran("sandbox/nowhere", "real/nothing", "sandbox/restart"), [1, "", said]);
});

test("npm test -- --help runs none, and prints how to use it", () => {
  for (const word of ["--help", "-h"]) assert.deepEqual(ran(word), [0, usage, ""]);
});

test("chooseFiles() takes files that hold one of the words, and without words all", () => {
  const all = ["test/real/a.test.ts", "test/sandbox/b.test.ts", "test/sandbox/c.test.ts"];
  assert.deepEqual(chooseFiles(all, []), { kind: "files", files: all });
  assert.deepEqual(chooseFiles(all, ["real/", "c.test"]), { kind: "files", files: [all[0], all[2]] });
});

test("every example of npm test with words names a test that there is", () => {
  const texts = [usage, ...["tools/test.ts", "CONTRIBUTING.md"].map((path) => readFileSync(path, "utf8"))];
  const words = texts.flatMap((text) =>
    [...text.matchAll(/npm test -- ([\w/. -]+)/g)].flatMap(([, found = ""]) => found.trim().split(" ")),
  );
  const real = words.filter((word) => /^[a-z-]/.test(word) && !word.startsWith("-"));
  assert.ok(real.length > 3, real.join(" "));
  for (const word of real) assert.equal(chooseFiles(files, [word]).kind, "files", word);
});
