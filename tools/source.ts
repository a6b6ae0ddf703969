// Reads the project's own TypeScript files and parses them, for the checks of size, comments and words.
import { globSync, readFileSync } from "node:fs";
import { parseSync } from "@swc/core";

/** A source file, parsed once. */
export interface Source {
  readonly path: string;
  readonly text: string;
  /** 1 for the first line; `at` is an offset of the tree. */
  lineOf(at: number): number;
  readonly tree: Node;
}

/** A node of swc's tree; what else it has depends on its type. */
export interface Node {
  readonly type: string;
  readonly span: { readonly start: number; readonly end: number };
  readonly [field: string]: unknown;
}

const folders = ["src", "sandbox", "test", "tools", "bench", "lab", "interop"];

/** Paths of all TypeScript files beneath the root, relative to it, sorted. */
export function sourcePaths(root = "."): readonly string[] {
  return globSync(`{${folders.join(",")}}/**/*.ts`, { cwd: root, exclude: (name) => name === "node_modules" }).sort();
}

/** Parses one file. */
export function parseSource(path: string, text = readFileSync(path, "utf8")): Source {
  const tree = parseSync(text, { syntax: "typescript", target: "es2024" }) as unknown as Node;
  const bytes = Buffer.from(text);
  const starts = [1]; // swc counts bytes, from 1
  for (const [i, byte] of bytes.entries()) if (byte === 10) starts.push(i + 2);
  return { path, text, tree, lineOf: (at) => starts.findLastIndex((start) => start <= at) + 1 };
}

/** Visits each node of the tree, parents first. */
export function walk(value: unknown, visit: (node: Node) => void): void {
  if (typeof value !== "object" || value === null) return;
  if ("type" in value && "span" in value) visit(value as Node);
  for (const child of Object.values(value)) walk(child, visit); // some children stand in wrappers without a type
}
