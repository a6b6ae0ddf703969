import { parseArgs } from "node:util";
import type { Command, Given, Option } from "./command.ts";

/** What the command line requests. */
export type CommandChoice =
  | { readonly kind: "version" }
  /** Of one command, or of the program. */
  | { readonly kind: "help"; readonly command: Command | undefined }
  | { readonly kind: "command"; readonly command: Command; readonly given: Given }
  | { readonly kind: "wrong"; readonly why: string; readonly command: Command | undefined };

const help: Option = { name: "help", short: "h", says: "this text" };

/** What every command takes besides its own options. */
export const commonOptions: readonly Option[] = [help];

/** What may be said instead of a command. */
export const programOptions: readonly Option[] = [help, { name: "version", short: "v", says: "the version" }];

/** Reads the arguments after the program's name. */
export function readCommandLine(args: readonly string[], commands: readonly Command[]): CommandChoice {
  const [first = "", ...rest] = args;
  const command = commands.find(({ name }) => name === first);
  try {
    if (command) return readOptions(command, rest);
    const { values, words } = parsed(args, programOptions);
    if (values["help"]) return { kind: "help", command: commands.find(({ name }) => name === words[0]) };
    if (values["version"]) return { kind: "version" };
    if (words[0] === "help") return { kind: "help", command: commands.find(({ name }) => name === words[1]) };
    return { kind: "wrong", why: `there is no command "${words[0]}"`, command: undefined };
  } catch (error) {
    const why = error instanceof Error ? (error.message.split(". ")[0] ?? "") : String(error);
    return { kind: "wrong", why, command };
  }
}

function readOptions(command: Command, args: readonly string[]): CommandChoice {
  const wrong = (why: string): CommandChoice => ({ kind: "wrong", why, command });
  const { values, words } = parsed(args, [...command.options, ...commonOptions]);
  if (values["help"]) return { kind: "help", command };
  for (const { name, words: known } of command.options) {
    const unknown = known && asList(values[name]).find((value) => !known.includes(value));
    if (unknown !== undefined) return wrong(`--${name} is "${unknown}": want ${known?.join(" or ")}`);
  }
  const { argument } = command;
  const most = argument ? 1 : 0;
  if (words.length > most) return wrong(`there is nothing to do with "${words[most]}"`);
  if (argument && !argument.words.includes(words[0] ?? "")) {
    const given = words[0] === undefined ? "is missing" : `is "${words[0]}"`;
    return wrong(`${argument.name} ${given}: want ${argument.words.join(" or ")}`);
  }
  const given: Given = {
    has: (name) => values[name] !== undefined,
    values: (name) => asList(values[name]),
    words,
  };
  return { kind: "command", command, given };
}

type Values = Readonly<Record<string, string | boolean | readonly (string | boolean)[] | undefined>>;

function parsed(args: readonly string[], options: readonly Option[]): { values: Values; words: readonly string[] } {
  const table = options.map(({ name, short, value, isMultiple = false }) => {
    const type: "string" | "boolean" = value === undefined ? "boolean" : "string";
    return [name, { type, multiple: isMultiple, ...(short === undefined ? {} : { short }) }] as const;
  });
  const read = parseArgs({ args: [...args], options: Object.fromEntries(table), allowPositionals: true, strict: true });
  return { values: read.values, words: read.positionals };
}

function asList(value: Values[string]): readonly string[] {
  return [value ?? []].flat().map(String);
}
