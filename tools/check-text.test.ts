import assert from "node:assert/strict";
import test from "node:test";
import { docProblems } from "./check-docs.ts";
import { globalProblems, staleDoors } from "./check-globals.ts";
import { sizeProblems } from "./check-size.ts";
import { staleStates, stateProblems } from "./check-state.ts";
import { parseSource } from "./source.ts";

function source(path: string, ...lines: readonly string[]) {
  return parseSource(path, lines.map((line) => `${line}\n`).join(""));
}

const filler = (count: number) => Array.from({ length: count }, (_, i) => `  f(${i});`);

test("parseSource() finds lines after other texts were parsed and with letters of more than one byte", () => {
  parseSource("before.ts", "const before = 1;\n");
  const { tree, lineOf } = source("a.ts", "// µµµµ", "", "const µ = '–';", "const b = 1;");
  const items = tree["body"] as { span: { start: number } }[];
  assert.deepEqual(
    items.map((item) => lineOf(item.span.start)),
    [3, 4],
  );
});

test("sizeProblems() names a function that is too long, whatever its form", () => {
  const forms = [
    ["function long() {", ...filler(59), "}"],
    ["class C {", "  long() {", ...filler(59), "  }", "}"],
    ["class C {", "  #long() {", ...filler(59), "  }", "}"],
    ["class C {", "  get long() {", ...filler(59), "  }", "}"],
    ["class C {", "  constructor() {", ...filler(59), "  }", "}"],
    ["const o = {", "  long() {", ...filler(59), "  },", "};"],
    ["const long = () => {", ...filler(59), "};"],
    ["call(() => {", ...filler(59), "});"],
  ];
  for (const form of forms)
    assert.match(sizeProblems(source("src/a/b.ts", ...form)).join(), /61 lines, the limit is 60/, form[0]);
  assert.deepEqual(sizeProblems(source("src/a/b.ts", "function long() {", ...filler(58), "}")), []);
});

test("sizeProblems() names a file that is too long; tests may be longer, generated files as long as they like", () => {
  const lines = Array.from({ length: 401 }, (_, i) => `const a${i} = 1;`);
  assert.match(sizeProblems(source("src/a/b.ts", ...lines)).join(), /401 lines, the limit is 400/);
  assert.deepEqual(sizeProblems(source("src/a/b.test.ts", ...lines)), []);
  assert.deepEqual(sizeProblems(source("src/gen/b_pb.ts", ...lines)), []);
});

test("sizeProblems() names a comment that is too long, and no long line of code", () => {
  const long = "b".repeat(150);
  for (const line of [`// ${long}`, `/** ${long} */`, `/**\n * ${long}\n */`])
    assert.match(sizeProblems(source("src/a/b.ts", line)).join(), /^src\/a\/b\.ts:\d: a comment of \d+ columns/, line);
  assert.deepEqual(sizeProblems(source("src/a/b.ts", `const a = "${long}";`, `// ${long.slice(3)}`)), []);
});

const door = ["// One.", "// Two.", "// Three."];

test("docProblems() wants a comment above what leaves the module", () => {
  const index = source("src/a/index.ts", ...door, 'export { bare, documented, type Shape } from "./b.ts";');
  const b = source(
    "src/a/b.ts",
    "export const bare = 1;",
    "/** Says something. */",
    "export function documented() {}",
    "/** Far above. */",
    "",
    "export interface Shape {}",
    "export const inner = 1;",
  );
  const problems = docProblems([index, b]);
  assert.deepEqual(problems, [
    "src/a/b.ts:1: bare leaves the module and has no doc comment directly above",
    "src/a/b.ts:6: Shape leaves the module and has no doc comment directly above",
  ]);
});

test("docProblems() wants 3 to 8 lines at the head of a door", () => {
  for (const count of [0, 2, 9]) {
    const lines = Array.from({ length: count }, () => "// Line.");
    assert.match(docProblems([source("src/a/index.ts", ...lines, "export {};")]).join(), /3 to 8/, String(count));
  }
  assert.deepEqual(docProblems([source("src/a/index.ts", ...door, "export {};")]), []);
});

const words = [
  ["const a = process.env;", "process.env"],
  ['const a = process["env"];', "process.env"],
  ["const a = Date.now();", "Date.now"],
  ["const a = Date.now;", "Date.now"],
  ["const a = new Date();", "new Date()"],
  ["const a = performance.now();", "performance.now"],
  ["const a = process.hrtime.bigint();", "performance.now"],
  ["const a = Date();", "new Date()"],
  ["class C { m() { setTimeout(() => {}, 1); } }", "a timer"],
  ["f(() => setInterval(g, 1));", "a timer"],
  ["globalThis.setTimeout(f, 1);", "a timer"],
  ["const wait = promisify(setTimeout);", "a timer"],
  ["const later = setTimeout;", "a timer"],
  ['import { setTimeout } from "node:timers/promises";', "a timer"],
  ["socket.setTimeout(5, end);", "a timer of a socket"],
  ["fetch(url, { signal: AbortSignal.timeout(5) });", "a timer of a signal"],
  ["await new Promise(setImmediate);", "a turn of the event loop"],
  ["process.nextTick(f);", "a turn of the event loop"],
  ["queueMicrotask(f);", "queueMicrotask"],
  ["const { random } = Math;", "Math.random"],
  ["const { now } = Date;", "Date.now"],
  ["globalThis.performance.now();", "performance.now"],
  ["const pair = generateKeyPairSync(kind);", "randomness"],
  ["const a = Math.random;", "Math.random"],
  ['import { randomBytes } from "node:crypto";', "randomness"],
  ["const a = crypto.getRandomValues(b);", "randomness"],
] as const;
for (const [code, word] of words) {
  test(`globalProblems() finds ${word} in ${code}`, () => {
    assert.match(
      globalProblems(source("src/a/b.ts", code)).join(),
      new RegExp(`^src/a/b.ts:1: ${word.replace(/[()]/g, "\\$&")} has its door`),
    );
  });
}

test("staleDoors() names what is allowed and not used", () => {
  const used = source("src/main.ts", "f(process.env);");
  const stale = staleDoors([used]);
  assert.ok(stale.includes("tools/check-globals.ts: src/async/clock.ts may touch Date.now and does not"));
  assert.ok(!stale.join().includes("src/main.ts"));
});

test("globalProblems() leaves alone what only looks like it, doors, tests and tools", () => {
  const harmless = [
    'const text = "process.env";',
    "// Date.now()",
    "const { setTimeout: limit } = options;",
    "new Date(1);",
    "other.env;",
  ];
  assert.deepEqual(globalProblems(source("src/a/b.ts", ...harmless)), []);
  for (const path of ["src/main.ts", "src/a/b.test.ts", "tools/a.ts", "sandbox/a.ts", "src/gen/a.ts"]) {
    assert.deepEqual(globalProblems(source(path, "f(process.env);")), [], path);
  }
});

test("stateProblems() names what a module or a class keeps, whatever its form, and nothing that cannot change", () => {
  const kept = [
    "let a = 0;",
    "export let a: number | undefined;",
    "const a = new Map<string, number>();",
    "const a = new KeyedQueue<string>();",
    "export const a: Set<string> = new Set();",
    "const a: string[] = [];",
    "const a = Buffer.alloc(8);",
    "const a = makeArea(slab, 8);",
    "const a: { b: number } = { b: 1 };",
    "class A { static a = 1; }",
    "class A { static readonly a = { b: 1 }; }",
  ];
  for (const line of kept) {
    assert.match(stateProblems(source("src/a/b.ts", line)).join(), /^src\/a\/b\.ts:1: a is state/, line);
    for (const path of ["src/a/b.test.ts", "src/a/testing/b.ts", "src/gen/b_pb.ts", "test/b.ts"]) {
      assert.deepEqual(stateProblems(source(path, line)), []);
    }
  }
  const constant = [
    "const a: ReadonlyMap<string, number> = new Map([['b', 1]]);",
    "const a: readonly string[] = [];",
    "const a = new RegExp('b');",
    "const a = Buffer.alloc(0);",
    "const a = layout(16, { b: [0, 'u8'] });",
    "const a: readonly number[] = makeAll();",
    "const a = { b: 1 } as const;",
    "const a: { readonly b: number } = { b: 1 };",
    "function f() { let a = 0; const b = new Map(); return [a, b]; }",
    "class A { static readonly a = 1; readonly #b = new Map(); static c() {} }",
  ];
  for (const line of constant) assert.deepEqual(stateProblems(source("src/a/b.ts", line)), [], line);
});

test("stateProblems() lets pass what is listed, and staleStates() names what is listed in vain", () => {
  const pool = source("src/kernel/netns.ts", "let isPoolStarted = false;");
  assert.deepEqual(stateProblems(pool), []);
  const stale = staleStates([pool]);
  assert.ok(!stale.join().includes("isPoolStarted"));
  assert.ok(
    stale.includes("tools/check-state.ts: src/kernel/native.ts handles is listed and is no state of the module"),
  );
});
