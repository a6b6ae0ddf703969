// Things of the outside that are no imports have their doors too: the environment, the clock, timers, the event loop, randomness. Where
// production goes past a door, a simulation has no hold of it. Imports have theirs in .dependency-cruiser.cjs.
import { type Node, type Source, walk } from "./source.ts";

interface Door {
  readonly says: string;
  readonly hits: (node: Node) => boolean;
  readonly instead: "take a Clock" | "take a Random" | "take a configuration value" | "await a promise";
  /** The only files that may touch it, each with the reason. */
  readonly allowed: Readonly<Record<string, string>>;
}

const clock = { "src/async/clock.ts": "is the clock" };
const random = { "src/async/random.ts": "is the randomness" };

const doors: readonly Door[] = [
  {
    says: "process.env",
    hits: (node) => isMember(node, "process", ["env"]),
    instead: "take a configuration value",
    allowed: { "src/main.ts": "reads the environment for all" },
  },
  {
    says: "Date.now",
    hits: (node) => isMember(node, "Date", ["now"]),
    instead: "take a Clock",
    allowed: clock,
  },
  {
    says: "performance.now",
    hits: (node) => isMember(node, "performance", ["now", "timeOrigin"]) || isMember(node, "process", ["hrtime"]),
    instead: "take a Clock",
    allowed: clock,
  },
  { says: "new Date()", hits: isNowDate, instead: "take a Clock", allowed: {} },
  {
    says: "a timer",
    hits: (node) => isTimer(node) || isImportOf(node, /^(node:)?timers(\/|$)/),
    instead: "take a Clock",
    allowed: {
      ...clock,
      "src/async/keep-alive.ts": "keeps the process alive and calls nothing",
    },
  },
  {
    says: "a timer of a socket",
    hits: isSocketTimer,
    instead: "take a Clock",
    allowed: {},
  },
  {
    says: "a timer of a signal",
    hits: (node) => isMember(node, "AbortSignal", ["timeout"]),
    instead: "take a Clock",
    allowed: { "src/commands/status/run.ts": "is a command that asks a forwarder once and ends" },
  },
  {
    says: "a turn of the event loop",
    hits: (node) => isNamed(node, "setImmediate") || isMember(node, "process", ["nextTick"]),
    instead: "await a promise",
    allowed: {
      "src/async/testing/virtual-clock.ts": "lets time pass when nothing else is to be done",
      "src/kernel/native.ts": "leaves libuv's callback, in which no promise runs",
      "src/kernel/unix-stream.ts": "lets the last bytes of a socket be read before its end",
      "src/nsm/testing/fakes.ts": "lets everything run that can",
      "src/rpc/http2/session.ts": "lets the last frames leave before the socket is closed",
      "src/rpc/http2/tls.ts": "lets the last record be read before its end",
    },
  },
  {
    says: "queueMicrotask",
    hits: (node) => isNamed(node, "queueMicrotask"),
    instead: "await a promise",
    allowed: { "src/async/event-guard.ts": "throws out of the callback that must not throw" },
  },
  {
    says: "Math.random",
    hits: (node) => isMember(node, "Math", ["random"]),
    instead: "take a Random",
    allowed: random,
  },
  { says: "randomness", hits: isRandomness, instead: "take a Random", allowed: random },
];

/** One sentence for each use of such a thing outside its door. Tests and what is not production are free. */
export function globalProblems(source: Source): readonly string[] {
  return uses(source)
    .filter(({ door }) => !Object.hasOwn(door.allowed, source.path))
    .map(({ door, line }) => `${source.path}:${line}: ${door.says} has its door elsewhere: ${door.instead}`);
}

/** One sentence for each file that may touch such a thing and does not: what is allowed for no reason hides the next use. */
export function staleDoors(sources: readonly Source[]): readonly string[] {
  const used = new Set(sources.flatMap((source) => uses(source).map(({ door }) => `${door.says} ${source.path}`)));
  return doors.flatMap(({ says, allowed }) =>
    Object.keys(allowed)
      .filter((path) => !used.has(`${says} ${path}`))
      .map((path) => `tools/check-globals.ts: ${path} may touch ${says} and does not`),
  );
}

function uses(source: Source): readonly { readonly door: Door; readonly line: number }[] {
  if (!source.path.startsWith("src/") || /^src\/gen\/|\.test\.ts$/.test(source.path)) return [];
  const found: { readonly door: Door; readonly line: number }[] = [];
  walk(source.tree, (node) => {
    for (const door of doors) if (door.hits(node)) found.push({ door, line: source.lineOf(node.span.start) });
  });
  return found;
}

function isNamed(node: unknown, name: string): boolean {
  return (node as Node | undefined)?.type === "Identifier" && (node as Node)["value"] === name;
}

/** `object.property`, also of `globalThis`, in brackets or taken apart: `const { property } = object`. */
function isMember(node: Node, object: string, properties: readonly string[]): boolean {
  if (node.type === "VariableDeclarator" && isNamed(node["init"], object)) {
    const { properties: parts = [] } = node["id"] as { properties?: readonly { key?: { value?: string } }[] };
    return parts.some(({ key }) => properties.includes(key?.value ?? ""));
  }
  return (
    node.type === "MemberExpression" &&
    (isNamed(node["object"], object) || isGlobal(node["object"], object)) &&
    properties.includes(propertyOf(node) ?? "")
  );
}

function isGlobal(node: unknown, name: string): boolean {
  const member = node as Node;
  return member.type === "MemberExpression" && isNamed(member["object"], "globalThis") && propertyOf(member) === name;
}

function propertyOf(member: Node): string | undefined {
  const key = member["property"] as { value?: string; expression?: { value?: string } };
  return key.value ?? key.expression?.value;
}

/** A call or a mention as a value; not a property or a method of that name. */
function isTimer(node: Node): boolean {
  const names = ["setTimeout", "setInterval"];
  const passed = (node["arguments"] ?? []) as readonly { readonly expression?: unknown }[];
  if (node.type === "CallExpression" && [node["callee"], ...passed.map(({ expression }) => expression)].some(isName)) {
    return true;
  }
  if (node.type === "VariableDeclarator" && isName(node["init"])) return true;
  return isMember(node, "globalThis", names);
  function isName(value: unknown): boolean {
    return names.some((name) => isNamed(value, name));
  }
}

function isSocketTimer(node: Node): boolean {
  const callee = node["callee"] as Node | undefined;
  return (
    node.type === "CallExpression" &&
    callee?.type === "MemberExpression" &&
    propertyOf(callee) === "setTimeout" &&
    !isNamed(callee["object"], "globalThis")
  );
}

function isImportOf(node: Node, module: RegExp): boolean {
  const { value } = (node["source"] ?? {}) as { value?: string };
  return node.type === "ImportDeclaration" && value !== undefined && module.test(value);
}

/** Of node:crypto or the global of that name, however it is used. */
function isRandomness(node: Node): boolean {
  const names = ["randomUUID", "randomBytes", "randomInt", "randomFill", "randomFillSync", "getRandomValues"];
  return [...names, "generateKeyPair", "generateKeyPairSync", "generateKey", "generateKeySync"].some((name) =>
    isNamed(node, name),
  );
}

function isNowDate(node: Node): boolean {
  const isNew = node.type === "NewExpression" && ((node["arguments"] ?? []) as unknown[]).length === 0;
  return (isNew || node.type === "CallExpression") && isNamed(node["callee"], "Date");
}
