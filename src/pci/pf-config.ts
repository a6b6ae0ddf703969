import {
  type Alias,
  type Document,
  isAlias,
  isMap,
  isScalar,
  isSeq,
  LineCounter,
  type Node,
  parseDocument,
  visit,
} from "yaml";
import { type Located, type PfConfig, PfConfigError, type PfConfigIssue, type Place } from "./pf-config-form.ts";
import { readPfConfig } from "./pf-config-rules.ts";

/** The largest file that is read as a list: some forty times that of a node with 512 VFs. */
export const PF_CONFIG_MEBIBYTES = 1;
/** Nothing in the file's form lies deeper; a document that does is refused, and so is an alias to its own parent. */
const DEPTH_MAX = 12;
/** Aliases of aliases can spell a billion values in ten lines. 512 VFs of eight keys are far below this. */
const VALUES_MAX = 100_000;
const START: Place = { line: 1, column: 1 };

/**
 * Reads the file that names the physical functions to manage. An empty file is a node without any.
 * @param fileName only for messages.
 * @throws {PfConfigError} with everything that is wrong in the file, not only the first.
 */
export function parsePfConfig(text: string, fileName: string): PfConfig {
  const lines = new LineCounter();
  const issues: PfConfigIssue[] = [];
  const place = (offset: number): Place => {
    const { line, col } = lines.linePos(offset);
    return { line, column: col };
  };
  // YAML takes all three for the end of a line; what reads a file may have cut a last "\r\n" to "\r", which the parser keeps as text.
  const document = parseText(text.replaceAll(/\r\n?/g, "\n"), lines);
  if (document instanceof RangeError) {
    throw new PfConfigError(fileName, [{ ...START, path: "", problem: "is nested too deeply" }]);
  }
  for (const { pos, message } of [...document.errors, ...document.warnings]) {
    issues.push({ ...place(pos[0]), path: "", problem: `is no YAML here: ${message}` });
  }
  if (issues.length > 0) throw new PfConfigError(fileName, issues);
  const seen = { values: 0 };
  const tree = locate(document.contents, { place, targets: aliasTargets(document), depth: 0, at: START, seen });
  if (seen.values > VALUES_MAX) {
    const problem = `has more than ${VALUES_MAX} values, those of aliases each time counted`;
    throw new PfConfigError(fileName, [{ ...START, path: "", problem }]);
  }
  const config = readPfConfig(tree, issues);
  if (issues.length > 0) {
    throw new PfConfigError(
      fileName,
      issues.sort((a, b) => a.line - b.line || a.column - b.column),
    );
  }
  return config;
}

function parseText(text: string, lineCounter: LineCounter): Document.Parsed | RangeError {
  try {
    // YAML 1.2 core: a PCI address without quotes stays text, while 1.1 would read 01:00 as a number in base 60.
    return parseDocument(text, {
      version: "1.2",
      schema: "core",
      lineCounter,
      prettyErrors: false,
      uniqueKeys: false, // reported by our own rule, which also sees two spellings of one address
    });
  } catch (error) {
    if (error instanceof RangeError) return error; // the parser's stack, on thousands of nested brackets
    throw error;
  }
}

/** The node of each alias. In one pass: `Alias.resolve` goes through the whole document for each of them. */
function aliasTargets(document: Document): ReadonlyMap<Alias, Node> {
  const anchored = new Map<string, Node>();
  const targets = new Map<Alias, Node>();
  visit(document, {
    Alias(_key, alias) {
      const target = anchored.get(alias.source);
      if (target) targets.set(alias, target);
    },
    Value(_key, node, path) {
      if (node.anchor !== undefined) anchored.set(node.anchor, node);
      // A level of the document is two of the path: the map or list, and the pair.
      return path.length > 2 * DEPTH_MAX + 2 ? visit.SKIP : undefined;
    },
  });
  return targets;
}

interface Where {
  readonly place: (offset: number) => Place;
  readonly targets: ReadonlyMap<Alias, Node>;
  readonly depth: number;
  readonly at: Place;
  readonly seen: { values: number };
}

function locate(node: Node | null, where: Where): Located {
  const at = node?.range ? where.place(node.range[0]) : where.at;
  where.seen.values++;
  if (where.depth > DEPTH_MAX || where.seen.values > VALUES_MAX) return { ...at, kind: "too-deep" };
  const below = { ...where, depth: where.depth + 1, at };
  if (isAlias(node)) return { ...locate(where.targets.get(node) ?? null, below), ...at };
  if (isMap<Node | null, Node | null>(node)) {
    const entries = node.items.map(({ key, value }) => {
      const name = locate(key, below);
      return { name, value: locate(value, { ...below, at: name }) };
    });
    return { ...at, kind: "map", entries };
  }
  if (isSeq<Node | null>(node)) {
    return { ...at, kind: "list", items: node.items.map((item) => locate(item, below)) };
  }
  if (!isScalar(node) || node.value === null || node.value === undefined) return { ...at, kind: "nothing" };
  return { ...at, kind: "scalar", value: node.value };
}
