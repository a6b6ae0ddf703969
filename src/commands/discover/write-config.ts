import { wrap } from "../text.ts";
import type { Choice, ChosenPf, LeftOut, Reasoned } from "./choose.ts";

/** Comments of a file end here at the latest. */
const MOST_COLUMNS = 110;

/** The choice as a PF configuration with the reasons as comments, which keep to the width as far as their words let them. */
export function configText({ chosen, leftOut }: Choice, heading: readonly string[], width = MOST_COLUMNS): string {
  const columns = Math.min(width, MOST_COLUMNS);
  const list =
    chosen.length === 0
      ? ["physicalFunctions: {}"]
      : ["physicalFunctions:", ...chosen.flatMap((pf) => pfLines(pf, columns))];
  const rest = leftOut.length === 0 ? [] : ["", "# Left out:", ...leftOutLines(leftOut, columns)];
  return `${[...heading.flatMap((line) => comment("", line, columns)), "", ...list, ...rest].join("\n")}\n`;
}

function pfLines(pf: ChosenPf, columns: number): readonly string[] {
  const values: (readonly [string, string])[] = [
    field("pfKernelDriver", pf.pfKernelDriver),
    field("vfKernelDriver", pf.vfKernelDriver),
    ["    capabilities:", ""],
    ...pf.capabilities.map(item),
    ["    serviceDomains:", ""],
    ...pf.serviceDomains.map(item),
  ];
  const width = Math.max(...values.map(([value]) => value.length));
  const numVfs = pf.mostVfs === undefined ? [] : [`    # numVfs: ${pf.mostVfs}`];
  return [
    ...pf.says.flatMap((line) => comment("  ", line, columns)),
    `  ${pf.address}:`,
    ...values.map(([value, why]) => (why === "" ? value : `${value.padEnd(width)}  # ${why}`)),
    ...numVfs.map((line) => `${line.padEnd(width)}  # that many are made at the start; say so here for fewer`),
  ];
}

function field(name: string, { value, why }: Reasoned<string>): readonly [string, string] {
  return [`    ${name}: ${scalar(value)}`, why];
}

function item({ value, why }: Reasoned<string>): readonly [string, string] {
  return [`      - ${scalar(value)}`, why];
}

/** Plain where YAML takes it for text whatever its rules; everything else in quotes. */
function scalar(text: string): string {
  const isNumber = text.trim() !== "" && !Number.isNaN(Number(text));
  const isPlain = /^[A-Za-z0-9][A-Za-z0-9_.-]*$/.test(text) && !/^(true|false|null|yes|no|on|off)$/i.test(text);
  return isPlain && !isNumber ? text : JSON.stringify(text);
}

function leftOutLines(leftOut: readonly LeftOut[], columns: number): readonly string[] {
  const width = Math.max(...leftOut.map(({ name }) => name.length));
  return leftOut.flatMap(({ address, name, why, todo }) => {
    const said = todo === undefined ? why : `${why}; ${todo}`;
    const [first = "", ...more] = wrap(said, columns - address.length - width - 6);
    const indent = " ".repeat(address.length + width + 6);
    return [`#   ${address}  ${name.padEnd(width)}  ${first}`, ...more.map((line) => `# ${indent}${line}`)];
  });
}

function comment(indent: string, text: string, columns: number): readonly string[] {
  return wrap(text, columns - indent.length - 2).map((line) => `${indent}# ${line}`);
}
