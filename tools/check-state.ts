// State that a module keeps for itself belongs to no one who could start it, stop it, or have two of it. It is a field of something
// that is made where the program is composed, and handed down. What is of the process, not of a forwarder, is listed with the reason.
import { type Node, type Source, walk } from "./source.ts";

const SCRATCH = "scratch memory of synchronous calls: nothing stays in it";
const MEMO = "what was worked out from the key, which does not change";

const allowed: Readonly<Record<string, string>> = {
  "src/async/event-guard.ts guardProbe": "tests throw here, out of any callback of the process",
  "src/async/event-guard.ts listeners": "callbacks of the process have no owner that could be asked",
  "src/identity/verify-tokens.ts publicKeys": MEMO,
  "src/kernel/device-program.ts idArea": SCRATCH,
  "src/kernel/device-program.ts queryArea": SCRATCH,
  "src/kernel/fd.ts statxArea": SCRATCH,
  "src/kernel/fd.ts trace": "tests hear of every descriptor of the process",
  "src/kernel/kernel-socket.ts slab": SCRATCH,
  "src/kernel/kernel-socket.ts spareSlabs": "scratch memory of calls on other threads: nothing stays in it",
  "src/kernel/native.ts handles": "libuv has one loop for the process, and knows its handles by address",
  "src/kernel/native.ts sslCalls": "the OpenSSL of the process, looked up at its first use",
  "src/kernel/netlink/conversation.ts totals": "benchmarks count what the process asks of the kernel",
  "src/kernel/netns.ts isPoolStarted": "libuv has one pool of threads for the process",
  "src/kernel/socket-message.ts inbound": SCRATCH,
  "src/kernel/socket-message.ts joined": SCRATCH,
  "src/kernel/socket-message.ts oneByte": SCRATCH,
  "src/kernel/socket-message.ts outbound": SCRATCH,
  "src/kernel/socket-message.ts slab": SCRATCH,
  "src/kernel/ssl-context.ts lastId": "numbers what OpenSSL is given",
  "src/kernel/ssl-context.ts onVerify": "OpenSSL calls one function of the process",
  "src/kernel/ssl-context.ts open": "OpenSSL is given one function of the process which of them is meant",
  "src/rpc/connection.ts count": "numbers the connections of the process",
  "src/rpc/wire-elements.ts entries": MEMO,
  "src/rpc/wire-elements.ts shapes": MEMO,
};

/** One sentence for each variable of a module, or of a class, that can change, and is not listed. Tests and their fakes are free. */
export function stateProblems(source: Source): readonly string[] {
  return states(source)
    .filter(({ key }) => !Object.hasOwn(allowed, key))
    .map(
      ({ name, line }) =>
        `${source.path}:${line}: ${name} is state of the module: make it a field, or its type readonly`,
    );
}

/** One sentence for each that is listed and is no more. */
export function staleStates(sources: readonly Source[]): readonly string[] {
  const found = new Set(sources.flatMap((source) => states(source).map(({ key }) => key)));
  const stale = Object.keys(allowed).filter((key) => !found.has(key));
  return stale.map((key) => `tools/check-state.ts: ${key} is listed and is no state of the module`);
}

interface State {
  readonly key: string;
  readonly name: string;
  readonly line: number;
}

function states({ path, tree, lineOf }: Source): readonly State[] {
  if (!path.startsWith("src/") || /^src\/gen\/|\/testing\/|\.test\.ts$/.test(path)) return [];
  const found: State[] = [];
  const note = (name: string, { span }: Node) => found.push({ key: `${path} ${name}`, name, line: lineOf(span.start) });
  for (const item of tree["body"] as readonly Node[]) {
    const declared = item.type === "ExportDeclaration" ? (item["declaration"] as Node) : item;
    if (declared.type !== "VariableDeclaration") continue;
    for (const one of declared["declarations"] as readonly Declarator[]) {
      const { value: name, typeAnnotation } = one.id;
      if (name !== undefined && (declared["kind"] !== "const" || isMutable(one.init, typeAnnotation))) note(name, one);
    }
  }
  walk(tree, (node) => {
    if (node.type !== "ClassProperty" || node["isStatic"] !== true) return;
    const { value: name = "" } = node["key"] as { readonly value?: string };
    const type = node["typeAnnotation"] as Annotation;
    const value = node["value"] as Node | null;
    if (node["readonly"] !== true || value?.type === "ObjectExpression" || isMutable(value, type)) note(name, node);
  });
  return found;
}

type Annotation = { readonly typeAnnotation: Node } | null | undefined;
interface Declarator extends Node {
  readonly id: { readonly value?: string; readonly typeAnnotation?: Annotation };
  readonly init: Node | null;
}

/** Calls that give a function, a text, a table that is only read, or what a library keeps. Whatever any other gives may change. */
const CONSTANT_MAKERS: ReadonlySet<string> = new Set([
  ...["encode", "from", "guarded", "keepAlive", "keys", "layout", "listenKind", "readText"],
  ...["defaultLoop", "func", "load", "loadAio", "proto", "register"], // koffi's
]);

/**
 * A collection without a readonly type, an empty list that is to be filled, what a call has made, an object whose type lets a field be
 * set.
 */
function isMutable(value: Node | null, annotation: Annotation): boolean {
  const type = annotation?.typeAnnotation;
  const typeName = (type?.["typeName"] as { readonly value?: string } | undefined)?.value ?? "";
  switch (value?.type) {
    case "NewExpression":
      return nameOf(value["callee"]) !== "RegExp" && !typeName.startsWith("Readonly");
    case "ArrayExpression":
      return (value["elements"] as readonly unknown[]).length === 0 && type?.type !== "TsTypeOperator";
    case "CallExpression":
      return !CONSTANT_MAKERS.has(nameOf(value["callee"])) && !isEmpty(value) && type?.type !== "TsTypeOperator";
    case "ObjectExpression":
      return (
        type?.type === "TsTypeLiteral" && (type["members"] as readonly Node[]).some((one) => one["readonly"] === false)
      );
    default:
      return false;
  }
}

function nameOf(callee: unknown): string {
  const { value, property } = callee as { readonly value?: string; readonly property?: { readonly value?: string } };
  return value ?? property?.value ?? "";
}

/** `Buffer.alloc(0)` */
function isEmpty(call: Node): boolean {
  const [size] = call["arguments"] as readonly { readonly expression: { readonly value?: unknown } }[];
  return size?.expression.value === 0;
}
