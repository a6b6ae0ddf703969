// Files and functions that a reader cannot hold in the head are split.
import { type Node, type Source, walk } from "./source.ts";

/** Hard limits, in lines, and in columns of a comment. What is aimed at is less: files under 280, functions under 40. */
export const limits = { file: 400, testFile: 600, function: 60, testFunction: 100, comment: 150 } as const;

const FUNCTIONS = new Set([
  "FunctionDeclaration",
  "FunctionExpression",
  "ArrowFunctionExpression",
  "ClassMethod",
  "PrivateMethod",
  "Constructor",
  "MethodProperty",
]);

/** One sentence for each file and function over its limit. Generated files have none. */
export function sizeProblems(source: Source): readonly string[] {
  if (source.path.startsWith("src/gen/")) return [];
  const isTest = source.path.endsWith(".test.ts");
  const lines = source.text.split("\n").length - 1;
  const limit = isTest ? limits.testFile : limits.file;
  const functionLimit = isTest ? limits.testFunction : limits.function;
  const problems =
    lines > limit ? [`${source.path}: ${lines} lines, the limit is ${limit}: which part is a subject of its own?`] : [];
  problems.push(...commentProblems(source));
  walk(source.tree, (node) => {
    if (!FUNCTIONS.has(node.type)) return;
    const [first, last] = [source.lineOf(node.span.start), source.lineOf(node.span.end - 1)];
    const length = last - first + 1;
    if (length > functionLimit) {
      problems.push(`${source.path}:${first}: ${nameOf(node)} has ${length} lines, the limit is ${functionLimit}`);
    }
  });
  return problems;
}

/** The formatter breaks no comment, so that a longer word in one makes its line longer. */
function commentProblems({ path, text }: Source): readonly string[] {
  const isTooLong = (line: string) => line.length > limits.comment && /^\s*(?:\/\/|\*|\/\*\*)/.test(line);
  return text.split("\n").flatMap((line, index) => {
    if (!isTooLong(line)) return [];
    return [
      `${path}:${index + 1}: a comment of ${line.length} columns, the limit is ${limits.comment}: break it again`,
    ];
  });
}

function nameOf(node: Node): string {
  const named = (node["identifier"] ?? node["key"]) as { value?: string; id?: { value?: string } } | null | undefined;
  return named?.value ?? named?.id?.value ?? "a function";
}
