// The import rule of .dependency-cruiser.cjs, and proof that it looked: a cruiser that sees no module also finds no violation.
import { execFile } from "node:child_process";
import { createRequire } from "node:module";
import { promisify } from "node:util";
import { sourcePaths } from "./source.ts";

interface Report {
  readonly modules: readonly {
    readonly source: string;
    readonly dependencies: readonly { readonly resolved: string }[];
  }[];
  readonly summary: {
    readonly violations: readonly {
      readonly from: string;
      readonly to: string;
      readonly rule: { readonly name: string };
    }[];
  };
}

type Allowances = Readonly<Record<string, readonly string[]>>;

/** What is wrong with the imports, one sentence each. */
export interface ImportProblems {
  /** Forbidden imports, and files that were not looked at. */
  readonly broken: readonly string[];
  /** Allowances in tools/modules.cjs that nothing uses. */
  readonly stale: readonly string[];
}

/** Looks at all TypeScript files beneath the root, which has the rule and the packages. */
export async function importProblems(root = "."): Promise<ImportProblems> {
  const paths = sourcePaths(root);
  const folders = [...new Set(paths.map((path) => path.split("/")[0] ?? ""))];
  const report = await cruise(root, folders);
  const allowances = createRequire(import.meta.url)("./modules.cjs") as Allowances;
  const violations = report.summary.violations.map(({ from, to, rule }) => `${from} imports ${to}: rule ${rule.name}`);
  return { broken: [...violations, ...unseen(report, paths)], stale: staleAllowances(report, allowances) };
}

async function cruise(root: string, folders: readonly string[]): Promise<Report> {
  const args = ["--config", ".dependency-cruiser.cjs", "--output-type", "json", ...folders];
  const options = { cwd: root, maxBuffer: 256 * 1024 * 1024 };
  const { stdout } = await promisify(execFile)("depcruise", args, options).catch((error: { stdout?: string }) => {
    if (!error.stdout?.startsWith("{")) throw error;
    return { stdout: error.stdout }; // violations are reported by the exit code too
  });
  return JSON.parse(stdout) as Report;
}

function unseen({ modules }: Report, paths: readonly string[]): readonly string[] {
  const seen = new Set(modules.map((module) => module.source));
  return paths.filter((path) => !seen.has(path)).map((path) => `${path}: the import check did not look at it`);
}

/** A module without a file yet is no reason to complain. */
function staleAllowances({ modules }: Report, allowances: Allowances): readonly string[] {
  const production = modules.filter(({ source }) => !source.endsWith(".test.ts"));
  return Object.entries(allowances).flatMap(([name, allowed]) => {
    const own = production.filter(({ source }) => source.startsWith(`src/${name}/`));
    const used = own.flatMap((module) => module.dependencies.map(({ resolved }) => resolved.split("/")[1]));
    const stale = own.length === 0 ? [] : allowed.filter((other) => !used.includes(other));
    return stale.map((other) => `tools/modules.cjs: ${name} may import ${other} and does not: take it out`);
  });
}
