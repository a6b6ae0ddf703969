// Every place where the outside calls us hands over a guarded callback: what it throws never ends the process.
import assert from "node:assert/strict";
import test from "node:test";
import { type Node, parseSource, type Source, sourcePaths, walk } from "../tools/source.ts";

/** Methods and functions that register a callback with Node, libuv or the kernel, and which of their arguments it is. */
const methods: Readonly<Record<string, number>> = {
  on: 1,
  once: 1,
  addListener: 1,
  prependListener: 1,
  addEventListener: 1,
  onReadable: 0,
  setTimeout: 1,
};
const functions: Readonly<Record<string, number>> = {
  openPoll: 1,
  openWake: 0,
  watch: 2,
  createServer: -1,
  setTimeout: 0,
  setInterval: 0,
  setImmediate: 0,
  queueMicrotask: 0,
};
/** Methods that may take one at their end. */
const trailing = new Set(["async", "listen", "write", "nextTick"]);

/** A peer decides when the timers of these modules fire; others are our own work (docs/decisions/004). */
const peersTimers = /^src\/(admin|kernel|nsm|rpc)\//;

/** Signals of the operator; the clock, whose callers guard what they hand over; the guard itself, which throws on purpose. */
const exempt = new Set([
  "src/process/process-life.ts",
  "src/main.ts",
  "src/async/clock.ts",
  "src/async/event-guard.ts",
]);

interface Call extends Node {
  readonly callee: Node & { readonly value?: string; readonly property?: Node & { readonly value?: string } };
  readonly arguments: readonly { readonly expression: Node }[];
}

const nameOf = ({ callee }: Call) => (callee.type === "Identifier" ? callee.value : callee.property?.value) ?? "";
const isCall = (node: Node | undefined): node is Call => node?.type === "CallExpression";
const isGuarded = (node: Node | undefined) => isCall(node) && nameOf(node) === "guarded";
const isFunction = (node: Node) => node.type === "ArrowFunctionExpression" || node.type === "FunctionExpression";

/** Names of a file that are a guarded callback wherever they are declared. */
function guardedNames({ tree }: Source): ReadonlySet<string> {
  const [safe, unsafe] = [new Set<string>(), new Set<string>()];
  walk(tree, (node) => {
    if (node.type === "VariableDeclarator") {
      const { id, init } = node as unknown as { readonly id: { readonly value: string }; readonly init?: Node };
      (isGuarded(init) ? safe : unsafe).add(id.value);
    }
    if (node.type === "FunctionDeclaration") unsafe.add((node["identifier"] as { readonly value: string }).value);
  });
  return new Set([...safe].filter((name) => !unsafe.has(name)));
}

function isSafe(callback: Node, names: ReadonlySet<string>): boolean {
  if (isGuarded(callback)) return true;
  const name = (callback["value"] ??
    (callback["property"] as { readonly value?: string } | undefined)?.value) as string;
  if (name === "resolve" || name === "reject") return true;
  if (callback.type === "Identifier") return names.has(name);
  const body = callback["body"] as (Node & { readonly stmts?: readonly Node[] }) | undefined;
  return isFunction(callback) && body?.stmts?.length === 0;
}

function callbackOf(path: string, call: Call): Node | undefined {
  const name = nameOf(call);
  const last = call.arguments.at(-1)?.expression;
  const isMethod = call.callee.type === "MemberExpression";
  if (isMethod && trailing.has(name)) return last && isFunction(last) ? last : undefined;
  if (isMethod && name === "after" && peersTimers.test(path)) return last;
  const known = isMethod ? methods : functions;
  const at = Object.hasOwn(known, name) ? known[name] : undefined;
  const found = at === undefined ? undefined : call.arguments.at(at)?.expression;
  const isOwnWatch = name === "watch" && !path.startsWith("src/kernel/"); // files are watched there only
  return isOwnWatch || found?.type === "ObjectExpression" ? undefined : found;
}

function unguarded(source: Source): readonly string[] {
  const names = guardedNames(source);
  const found: string[] = [];
  walk(source.tree, (node) => {
    if (!isCall(node)) return;
    const callback = callbackOf(source.path, node);
    if (callback && !isSafe(callback, names))
      found.push(`${source.path}:${source.lineOf(node.span.start)} ${nameOf(node)}`);
  });
  return found;
}

const files = sourcePaths().filter(
  (path) => path.startsWith("src/") && !path.endsWith(".test.ts") && !path.startsWith("src/gen/") && !exempt.has(path),
);

test("every callback that the outside calls is guarded", () => {
  assert.deepEqual(
    files.flatMap((path) => unguarded(parseSource(path))),
    [],
  );
});

const places = [
  { says: "a bare function", text: 'socket.on("data", (chunk) => use(chunk));', problems: 1 },
  { says: "a function by its name", text: 'const f = () => go();\nsocket.once("close", f);', problems: 1 },
  { says: "a method", text: 'signal.addEventListener("abort", this.stop);', problems: 1 },
  { says: "a timer of a peer", text: "clock.after(10, () => go());", problems: 1 },
  { says: "a watch of a descriptor", text: "openPoll(fd, () => go());", problems: 1 },
  { says: "a guarded function", text: 'socket.on("data", guarded("tcp", (chunk) => use(chunk)));', problems: 0 },
  { says: "a guarded function by its name", text: 'const f = guarded("tcp", go);\nsocket.on("data", f);', problems: 0 },
  { says: "nothing to run", text: 'socket.on("error", () => {});', problems: 0 },
  { says: "a promise's end", text: 'socket.once("error", done.reject);', problems: 0 },
];
for (const { says, text, problems } of places) {
  test(`${says} is ${problems === 0 ? "taken" : "refused"} as a callback`, () => {
    assert.equal(unguarded(parseSource("src/rpc/made-up.ts", text)).length, problems);
  });
}
