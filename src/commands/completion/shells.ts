import type { Command, Option } from "../command.ts";
import { commonOptions, programOptions } from "../command-line.ts";

/** How one shell learns what may be typed. */
type Script = (commands: readonly Command[]) => string;

function optionsOf(command: Command): readonly Option[] {
  return [...command.options, ...commonOptions];
}

function spellings({ name, short }: Option): readonly string[] {
  return [...(short ? [`-${short}`] : []), `--${name}`];
}

function quoted(text: string): string {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}

const bash: Script = (commands) => {
  const words = (command: Command) =>
    [...(command.argument?.words ?? []), ...optionsOf(command).flatMap(spellings)].join(" ");
  const values = commands.flatMap((command) =>
    command.options.flatMap((option) =>
      option.value === undefined
        ? []
        : [
            `    ${spellings(option)
              .map((one) => `"${command.name} ${one}"`)
              .join("|")}) words="${(option.words ?? []).join(" ")}" ;;`,
          ],
    ),
  );
  const first = [...commands.map(({ name }) => name), ...programOptions.flatMap(spellings)].join(" ");
  return `# bash completion of forwarder
_forwarder() {
  local word=\${COMP_WORDS[COMP_CWORD]} words=""
  case "\${COMP_WORDS[1]} \${COMP_WORDS[COMP_CWORD-1]}" in
${values.join("\n")}
    *)
      case "$COMP_CWORD \${COMP_WORDS[1]}" in
        "1 "*) words="${first}" ;;
${commands.map((command) => `        *" ${command.name}") words="${words(command)}" ;;`).join("\n")}
      esac ;;
  esac
  COMPREPLY=($(compgen -W "$words" -- "$word"))
}
complete -F _forwarder forwarder
`;
};

const zsh: Script = (commands) => {
  const escaped = (text: string) => text.replace(/[[\]:\\]/g, "\\$&");
  const spec = (option: Option) => {
    const { value, words, isMultiple, says } = option;
    const all = spellings(option);
    const guard = isMultiple ? "*" : `(${all.join(" ")})`;
    const action = words ? `(${words.join(" ")})` : "";
    const rest = `[${escaped(says)}]${value === undefined ? "" : `:${value}:${action}`}`;
    return all.map((one) => `      ${quoted(guard + one + rest)}`).join(" \\\n");
  };
  const cases = commands.map((command) => {
    const { argument } = command;
    const first = argument ? [`      ${quoted(`1:${argument.name}:(${argument.words.join(" ")})`)}`] : [];
    const specs = [...first, ...optionsOf(command).map(spec)].join(" \\\n");
    return `    ${command.name}) _arguments -s \\\n${specs} ;;`;
  });
  return `#compdef forwarder
# zsh completion of forwarder
_forwarder() {
  local -a commands=(
${commands.map(({ name, summary }) => `    ${quoted(`${name}:${escaped(summary)}`)}`).join("\n")}
  )
  if (( CURRENT == 2 )); then
    _describe command commands
    compadd -- ${programOptions.flatMap(spellings).join(" ")}
    return
  fi
  local command=$words[2]
  shift words
  (( CURRENT-- ))
  case $command in
${cases.join("\n")}
  esac
}
if [[ $funcstack[1] == _forwarder ]]; then _forwarder "$@"; else compdef _forwarder forwarder; fi
`;
};

const fish: Script = (commands) => {
  const text = (one: string) => `'${one.replace(/['\\]/g, "\\$&")}'`;
  const option = ({ name, short, value, words, says }: Option) => {
    const takes = value === undefined ? "" : ` -x${words ? ` -a ${text(words.join(" "))}` : ""}`;
    return `${short ? ` -s ${short}` : ""} -l ${name}${takes} -d ${text(says)}`;
  };
  const alone = commands.map(({ name, summary }) => `-n __fish_use_subcommand -a ${name} -d ${text(summary)}`);
  const lines = commands.flatMap((command) => {
    const after = `-n '__fish_seen_subcommand_from ${command.name}'`;
    const { argument } = command;
    return [
      ...(argument ? [`${after} -a ${text(argument.words.join(" "))} -d ${text(argument.name)}`] : []),
      ...optionsOf(command).map((one) => after + option(one)),
    ];
  });
  const program = programOptions.map((one) => `-n __fish_use_subcommand${option(one)}`);
  return `# fish completion of forwarder
complete -c forwarder -f
${[...alone, ...program, ...lines].map((line) => `complete -c forwarder ${line}`).join("\n")}
`;
};

/** Each shell with how its script is made. */
export const shells: Readonly<Record<"bash" | "zsh" | "fish", Script>> = { bash, zsh, fish };

/** The shells that can be helped. */
export const shellNames = Object.keys(shells) as readonly (keyof typeof shells)[];
