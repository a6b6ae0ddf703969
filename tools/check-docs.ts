// What leaves a module says what its name cannot, and each module's door says what the module is.
import { dirname, join } from "node:path";
import type { Node, Source } from "./source.ts";

/**
 * One sentence for each declaration that leaves its module through index.ts without a doc comment directly above, and for each
 * door without its opening comment. Options are named after what takes them and need none: their fields do.
 */
export function docProblems(sources: readonly Source[]): readonly string[] {
  const doors = sources.filter(({ path }) => /^src\/[^/]+\/index\.ts$/.test(path) && !path.startsWith("src/gen/"));
  const leaving = new Set(doors.flatMap(namesThrough));
  return [...doors.flatMap(doorProblems), ...sources.flatMap((source) => exportProblems(source, leaving))];
}

/** `path#name` of each declaration that the door lets out. */
function namesThrough(door: Source): readonly string[] {
  const exports = (door.tree["body"] as Node[]).filter((item) => item.type === "ExportNamedDeclaration");
  return exports.flatMap((item) => {
    const from = join(dirname(door.path), (item["source"] as { value: string } | null)?.value ?? "");
    const names = (item["specifiers"] as { orig: { value: string } }[]).map((specifier) => specifier.orig.value);
    return names.map((name) => `${from}#${name}`);
  });
}

function doorProblems({ path, text }: Source): readonly string[] {
  const opening = text.split("\n").findIndex((line) => !line.startsWith("//"));
  if (opening >= 3 && opening <= 8) return [];
  return [
    `${path}: opens with ${opening} comment lines: 3 to 8 say what the module is, what it refuses to know, where to start reading`,
  ];
}

function exportProblems(source: Source, leaving: ReadonlySet<string>): readonly string[] {
  const lines = source.text.split("\n");
  const documented = new Set<string>();
  const problems: string[] = [];
  for (const item of (source.tree["body"] as Node[]).filter(({ type }) => type === "ExportDeclaration")) {
    const name = nameOf(item["declaration"] as Node);
    const line = source.lineOf(item.span.start);
    // Of a function with overloads the first signature carries the comment.
    if (/\*\/\s*$/.test(lines[line - 2] ?? "")) documented.add(name);
    else if (!documented.has(name) && !name.endsWith("Options") && leaving.has(`${source.path}#${name}`)) {
      problems.push(`${source.path}:${line}: ${name} leaves the module and has no doc comment directly above`);
    }
  }
  return problems;
}

function nameOf(declaration: Node): string {
  const variables = declaration["declarations"] as { id: { value?: string } }[] | undefined;
  const id = (declaration["identifier"] ?? declaration["id"] ?? variables?.[0]?.id) as { value?: string } | undefined;
  return id?.value ?? "an export";
}
