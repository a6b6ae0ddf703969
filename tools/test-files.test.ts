import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import test from "node:test";
import type { TestCounts } from "./test-counts.ts";

/** Runs the texts as test files in a runner of their own: Node refuses one within another. */
async function ran(...texts: readonly string[]): Promise<{ counts: TestCounts; output: string }> {
  return await ranWith({}, ...texts);
}

async function ranWith(
  { under = "", ...settings }: Readonly<Record<string, string>>,
  ...texts: readonly string[]
): Promise<{ counts: TestCounts; output: string }> {
  const folder = mkdtempSync(join(tmpdir(), "runner-"));
  try {
    const files = texts.map((text, i) => {
      const path = join(folder, under, `${i}.test.ts`);
      mkdirSync(dirname(path), { recursive: true });
      writeFileSync(path, `import test from "node:test";\n${text}\n`);
      return path;
    });
    const helper = `import test from "node:test"; export const fails = () => test("in a helper", () => { throw new Error("no"); });`;
    writeFileSync(join(folder, under, "helper.ts"), helper);
    const report = join(folder, "counts.json");
    const { NODE_TEST_CONTEXT: _, TEST_COSTS: __, TEST_COST_NOTES: ___, ...own } = process.env;
    const env = { ...own, ...settings };
    const args = ["tools/test-files.ts", report, ...files];
    const output = await new Promise<string>((resolve) => {
      execFile(process.execPath, args, { env }, (_error, _stdout, stderr) => resolve(stderr));
    });
    return { counts: JSON.parse(readFileSync(report, "utf8")) as TestCounts, output };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

test("runTestFiles() counts tests, tests within tests and skips with their reasons", async () => {
  const { counts } = await ran(
    `test("a", async (t) => { await t.test("b", () => {}); });`,
    `test("c", (t) => t.skip("needs vfio")); test.skip("d"); test.todo("e");`,
  );
  assert.deepEqual(counts, {
    passed: 2,
    failed: 0,
    skips: [
      { name: "c", why: "needs vfio" },
      { name: "d", why: "no reason given" },
      { name: "e", why: "no reason given" },
    ],
  });
});

test("runTestFiles() counts failures and prints them, also of a file that cannot be loaded", async () => {
  const { counts, output } = await ran(`test("a", () => { throw new Error("bad luck"); });`, `import "./nowhere.ts";`);
  assert.deepEqual([counts.passed, counts.failed], [0, 2]);
  assert.match(output, /✖ a\n.*\n {2}Error: bad luck/);
  assert.match(output, /nowhere/);
});

test("runTestFiles() fails a file that leaves a socket open, and does not wait for it", async () => {
  const { counts, output } = await ranWith(
    { TEST_LEAK_PATIENCE_MS: "1000" },
    `import { createServer } from "node:net"; import { once } from "node:events";
     test("a", async () => { await once(createServer().listen(0), "listening"); });`,
  );
  assert.deepEqual([counts.passed, counts.failed], [1, 1]);
  assert.match(output, /done and left open: socket:/);
});

test("runTestFiles() fails a file whose process ends before its tests are done", async () => {
  const { counts, output } = await ran(
    `test("a", () => {}); test("b", () => process.exit(0)); test("c", () => {});`,
    `import { setTimeout as sleep } from "node:timers/promises";
     test("d", () => {}); test("e", async () => { await sleep(200); process.exit(0); }); test("f", () => {});`,
  );
  assert.equal(counts.failed, 2);
  assert.match(output, /✖ .*0\.test\.ts\n {2}it has no tests, or its process ended before they were done/);
  assert.match(output, /✖ .*1\.test\.ts\n {2}it has no tests/);
});

test("runTestFiles() ends a file at its limit, whatever its tests wait for", async () => {
  const { counts, output } = await ranWith(
    { TEST_FILE_LIMIT_MS: "1500" },
    `for (const name of ["a", "b", "c"]) {
       test(name, () => new Promise((resolve) => setTimeout(resolve, 600_000)));
     }`,
  );
  assert.ok(counts.failed > 0 && counts.passed === 0);
  assert.match(output, /0\.test\.ts\n {2}it was not done after 1\.5 s/);
});

test("runTestFiles() names the unit test that waits in vain, and runs those behind it", async () => {
  const { counts, output } = await ranWith(
    { under: "src/module", TEST_LIMIT_MS: "300", TEST_LEAK_PATIENCE_MS: "200" },
    `test("a", () => new Promise(() => {})); test("b", () => {});`,
    `test("c", () => {});`,
  );
  assert.deepEqual([counts.passed, counts.failed], [2, 1], output);
  assert.match(output, /✖ a\n {2}\S*0\.test\.ts\n[^✖]*timed out after 300ms/);
});

test("runTestFiles() ends a file at an error that no one catches, whatever its tests wait for, and prints it", async () => {
  const uncaught = [
    `test("a", () => new Promise(() => { setInterval(() => { throw new Error("thrown late"); }, 1); }));`,
    `test("b", () => { void Promise.reject(new Error("rejected unseen")); return new Promise((done) => setTimeout(done, 600_000)); });`,
  ];
  const alone = await ran(...uncaught);
  assert.ok(alone.counts.failed >= 2 && alone.counts.passed === 0, JSON.stringify(alone.counts));
  const together = await ranTogether(...uncaught.toReversed());
  assert.ok(together.counts.failed >= 2 && together.counts.passed === 0, JSON.stringify(together.counts));
  for (const { output } of [alone, together]) assert.match(output, /✖ uncaught: Error: rejected unseen\n +at /);
  assert.match(alone.output, /✖ uncaught: Error: thrown late/);
  assert.doesNotMatch(alone.output + together.output, /it was not done after/);
});

test("failUncaught() keeps promises from being followed, of a test and of what it calls", async () => {
  const { counts, output } = await ran(`
    import assert from "node:assert/strict";
    import { executionAsyncId } from "node:async_hooks";
    import { setImmediate } from "node:timers/promises";
    test("a", async () => {
      await setImmediate();
      assert.equal(await Promise.resolve().then(executionAsyncId), 0);
    });`);
  assert.deepEqual([counts.passed, counts.failed], [1, 0], output);
});

test("runTestFiles() fails a file without tests, and one whose suites are empty", async () => {
  const { counts } = await ran("", `import { describe } from "node:test"; describe("nothing", () => {});`);
  assert.deepEqual(counts, { passed: 0, failed: 2, skips: [] });
});

test("runTestFiles() names the file that ran, and beside it the helper that made the test", async () => {
  const { output } = await ran(`import { fails } from "./helper.ts"; fails();`);
  assert.match(output, /✖ in a helper\n {2}.*0\.test\.ts \(.*helper\.ts\)/);
});

test("runTestFiles() reports what the dearest files took, with what they started", async () => {
  const { output } = await ranWith(
    { TEST_COSTS: "1" },
    `import { execFileSync } from "node:child_process";
     test("a", () => execFileSync(process.execPath, ["-e", "const t = process.cpuUsage(); while (process.cpuUsage(t).user < 200_000);"]));`,
    `test("b", () => {});`,
  );
  assert.match(output, /^ +\d+\.\d s of CPU, +(0\.[2-9]|[1-9]\d*\.\d) in children: .*0\.test\.ts$/m);
  assert.match(output, /^ +\d+\.\d s of CPU for 2 files$/m);
});

/** Runs the texts as the files of one module, which share a process. */
const ranTogether = (...texts: readonly string[]) =>
  ranWith({ under: "src/module", TEST_LEAK_PATIENCE_MS: "200", TEST_FILE_LIMIT_MS: "8000" }, ...texts);

test("runTestFiles() counts the tests of files that share a process, each as its file's", async () => {
  const { counts, output } = await ranTogether(
    `test("a", async (t) => { await t.test("b", () => {}); }); test.skip("c");`,
    `import { fails } from "./helper.ts"; fails(); test("d", () => {});`,
    `test("e", () => { setTimeout(() => {}, 5).unref(); return new Promise((done) => setTimeout(done, 10).unref()); });`,
    `import "./nowhere.ts";`,
  );
  assert.deepEqual([counts.passed, counts.failed, counts.skips.length], [4, 2, 1]);
  assert.match(output, /✖ in a helper\n {2}\S*1\.test\.ts \(\S*helper\.ts\)/);
  assert.match(output, /✖ \S*3\.test\.ts\n[^✖]*nowhere/);
});

test("runTestFiles() says which of the files that share a process leaves something open", async () => {
  const { counts, output } = await ranTogether(
    `test("a", () => {});`,
    `import { createServer } from "node:net"; test("b", () => void createServer().listen(0));`,
    `test("c", () => {});`,
  );
  assert.ok(counts.passed >= 2 && counts.failed >= 1, JSON.stringify(counts));
  assert.match(output, /The tests of \S*1\.test\.ts are done and left open: .*socket/);
  assert.doesNotMatch(output, /The tests of \S*[02]\.test\.ts are done/);
});

test("runTestFiles() fails what was not done when a process that files share ends, and a file without tests", async () => {
  const ended = await ranTogether(`test("a", () => {});`, `test("b", () => process.exit(0));`, `test("c", () => {});`);
  assert.ok(ended.counts.failed >= 2, JSON.stringify(ended.counts)); // what was reported last is lost with the process
  for (const file of ["1", "2"]) assert.match(ended.output, new RegExp(`✖ \\S*${file}\\.test\\.ts\n.*ended before`));
  const empty = await ranTogether(
    `test("a", () => {});`,
    "",
    `describe("b", () => {}); import { describe } from "node:test";`,
  );
  assert.deepEqual([empty.counts.passed, empty.counts.failed], [1, 2]);
  const late = await ranTogether(`test("a", () => {});`, `test("b", () => new Promise(() => {}));`);
  assert.equal(late.counts.passed, 1);
  assert.match(late.output, /✖ \S*1\.test\.ts\n {2}it was not done after 8 s/);
});
