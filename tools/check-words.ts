// Things of the outside that are no imports have their doors too: the environment, the clock, timers, randomness.
import { type Node, type Source, walk } from "./source.ts";

/** A global and the only files that may touch it, each with the reason in style or architecture. */
const doors: readonly { readonly says: string; readonly hits: (node: Node) => boolean; readonly door: RegExp }[] = [
  { says: "process.env", hits: (node) => isMember(node, "process", "env"), door: /^src\/main\.ts$/ },
  { says: "Date.now", hits: (node) => isMember(node, "Date", "now"), door: /^src\/async\/clock\.ts$/ },
  { says: "performance.now", hits: (node) => isMember(node, "performance", "now"), door: /^src\/async\/clock\.ts$/ },
  { says: "setTimeout", hits: (node) => isUse(node, "setTimeout"), door: /^src\/async\/clock\.ts$/ },
  { says: "setInterval", hits: (node) => isUse(node, "setInterval"), door: /^src\/async\/keep-alive\.ts$/ },
  { says: "new Date()", hits: isNowDate, door: /^src\/async\/clock\.ts$/ },
  { says: "Math.random", hits: (node) => isMember(node, "Math", "random"), door: /^src\/async\/random\.ts$/ },
  { says: "randomness", hits: isRandomness, door: /^src\/async\/random\.ts$/ },
];

/** One sentence for each use of such a thing outside its door. Tests and what is not production are free. */
export function wordProblems(source: Source): readonly string[] {
  if (!source.path.startsWith("src/") || /^src\/gen\/|\.test\.ts$/.test(source.path)) return [];
  const problems: string[] = [];
  walk(source.tree, (node) => {
    for (const { says, hits, door } of doors) {
      if (!hits(node) || door.test(source.path)) continue;
      const line = source.lineOf(node.span.start);
      const instead = door.source.includes("random")
        ? "take a Random"
        : says === "process.env"
          ? "take a configuration value"
          : "take a Clock";
      problems.push(`${source.path}:${line}: ${says} has its door elsewhere: ${instead}`);
    }
  });
  return problems;
}

function isNamed(node: unknown, name: string): boolean {
  return (node as Node | undefined)?.type === "Identifier" && (node as Node)["value"] === name;
}

function isMember(node: Node, object: string, property: string): boolean {
  if (node.type !== "MemberExpression" || !isNamed(node["object"], object)) return false;
  const key = node["property"] as { value?: string; expression?: { value?: string } };
  return (key.value ?? key.expression?.value) === property;
}

/** A call or a mention as a value; not a property or a parameter of that name. */
function isUse(node: Node, name: string): boolean {
  return node.type === "CallExpression" && isNamed(node["callee"], name);
}

/** Of node:crypto or the global of that name, however it is used. */
function isRandomness(node: Node): boolean {
  return ["randomUUID", "randomBytes", "randomInt", "randomFillSync", "getRandomValues"].some((name) =>
    isNamed(node, name),
  );
}

function isNowDate(node: Node): boolean {
  return (
    node.type === "NewExpression" && isNamed(node["callee"], "Date") && (node["arguments"] as unknown[]).length === 0
  );
}
