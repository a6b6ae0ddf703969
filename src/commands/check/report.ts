import type { Terminal } from "../command.ts";
import { painter } from "../paint.ts";
import { counted, wrap } from "../text.ts";
import { mechanisms as all, type Finding, type Level, type Mechanism } from "./finding.ts";
import { countOf } from "./judge.ts";

/** Width of "FAIL" with its gap. */
const LEVEL_COLUMNS = 6;
/** Width of "to do" with its gap. */
const LABEL_COLUMNS = 7;
const LEAST_TEXT_COLUMNS = 30;

interface ReportOptions {
  readonly mechanisms: readonly Mechanism[];
  /** Leaves out what is well. */
  readonly isQuiet: boolean;
}

/** The findings for the operator: what keeps a mechanism from working comes first, and the last lines say whether they can work. */
export function reportText(findings: readonly Finding[], terminal: Terminal, options: ReportOptions): string {
  const shown = findings.filter(({ level }) => !(options.isQuiet && level === "ok"));
  const lines = shown.flatMap((finding) => findingLines(finding, terminal, options));
  const gap = lines.length > 0 ? [""] : [];
  return `${[...lines, ...gap, ...verdictLines(findings, terminal, options)].join("\n")}\n`;
}

const levelWords: Readonly<Record<Level, string>> = { ok: "ok", warn: "warn", fail: "FAIL" };

function findingLines(finding: Finding, terminal: Terminal, { mechanisms }: ReportOptions): readonly string[] {
  const { check, subject, level, what, why, todo } = finding;
  const paint = painter(terminal);
  const colors = { ok: paint.good, warn: paint.doubtful, fail: paint.bad };
  const name = subject === undefined ? check : `${check} ${subject}`;
  const [first = "", ...more] = wrap(`${name}: ${what}`, textColumns(terminal, LEVEL_COLUMNS));
  const strong = level === "ok" ? (text: string) => text : paint.bold;
  const head = colors[level](levelWords[level].padEnd(LEVEL_COLUMNS)) + strong(first);
  const concerned = all.filter((one) => finding.mechanisms.includes(one) && mechanisms.includes(one)).join(", ");
  return [
    head,
    ...more.map((line) => `${" ".repeat(LEVEL_COLUMNS)}${strong(line)}`),
    ...labelled("why", why && `${concerned}: ${why}`, terminal).map(paint.dim),
    ...labelled("to do", todo, terminal),
  ];
}

function labelled(label: string, text: string | undefined, terminal: Terminal): readonly string[] {
  if (text === undefined) return [];
  const indent = LEVEL_COLUMNS + LABEL_COLUMNS;
  return wrap(text, textColumns(terminal, indent)).map((line, index) =>
    index === 0 ? `${" ".repeat(LEVEL_COLUMNS)}${label.padEnd(LABEL_COLUMNS)}${line}` : `${" ".repeat(indent)}${line}`,
  );
}

function textColumns({ columns }: Terminal, indent: number): number {
  return Math.max(LEAST_TEXT_COLUMNS, columns - indent);
}

function verdictLines(findings: readonly Finding[], terminal: Terminal, { mechanisms }: ReportOptions): string[] {
  const paint = painter(terminal);
  return mechanisms.map((mechanism) => {
    const failures = countOf(findings, "fail", mechanism);
    const doubts = countOf(findings, "warn", mechanism);
    const tail = doubts > 0 ? `, ${counted(doubts, "warning")}` : "";
    const verdict = failures > 0 ? paint.bad(`cannot work here: ${counted(failures, "failure")}${tail}`) : undefined;
    return `${mechanism.padEnd(8)}${verdict ?? paint.good(`can work here${tail}`)}`;
  });
}

/** The findings for programs. */
export function reportJson(findings: readonly Finding[], version: string, mechanisms: readonly Mechanism[]): string {
  const works = Object.fromEntries(mechanisms.map((one) => [one, countOf(findings, "fail", one) === 0]));
  return `${JSON.stringify({ version, works, findings }, undefined, 1)}\n`;
}
