import type { Command, Option, Surroundings } from "./command.ts";
import { commonOptions, programOptions } from "./command-line.ts";
import { type Painter, painter } from "./paint.ts";

/** Exit code of a command line that makes no sense. */
export const USAGE_EXIT_CODE = 2;

/** The help of the whole program. */
export function programHelp(commands: readonly Command[], { version, environment, out }: Surroundings): string {
  const paint = painter(out);
  const rows = commands.map(({ name, argument, summary }) => [`forwarder ${callOf(name, argument)}`, summary] as const);
  const variables = environment.variables.map(({ name, standard }) => [name, standard] as const);
  const options = programOptions.map((option) => [optionText(option), option.says] as const);
  return `SR-IOV forwarder of Network Service Mesh ${version}

${paint.bold("Usage")}
${columns([["forwarder", "run, with what the environment says"], ...rows], paint)}

${paint.bold("Options")}
${columns(options, paint)}
  each command has its own --help

${paint.bold("Examples")}
  forwarder discover > /var/lib/networkservicemesh/sriov.config
  forwarder check
  NSM_SRIOV_CONFIG_FILE=/var/lib/networkservicemesh/sriov.config \\
  SPIFFE_ENDPOINT_SOCKET=unix:///run/spire/sockets/agent.sock forwarder

${paint.bold("Variables and their defaults")} (README.md says what they mean)
${columns(variables, paint)}

${paint.bold("Signals of a running forwarder")}
  TERM INT HUP QUIT      stop; connections stay up for the next start; a second one ends the process at once
  USR1 USR2              log level TRACE, and back to NSM_LOG_LEVEL

${paint.bold("Exit codes")}
  0 stopped when asked, 1 could not start or stop, ${USAGE_EXIT_CODE} wrong command line, 70 a fault in the program,
  128 and the signal's number when a second signal ended it at once; the last line of the log says why;
  those of a command are in its --help
`;
}

/** The help of one command. */
export function commandHelp(command: Command, { out }: Surroundings): string {
  const paint = painter(out);
  const { name, argument, about, options, examples, exitCodes } = command;
  const shown = [...options, ...commonOptions].map((option) => [optionText(option), option.says] as const);
  const codes = [...exitCodes, { code: USAGE_EXIT_CODE, says: "wrong command line" }];
  return `${paint.bold("Usage")}
  forwarder ${callOf(name, argument)}${options.length > 0 ? " [options]" : ""}

${about.map((line) => `${line}\n`).join("")}
${paint.bold("Options")}
${columns(shown, paint)}

${paint.bold("Examples")}
${examples.map(({ line, says }) => `  ${paint.dim(`# ${says}`)}\n  ${line}`).join("\n")}

${paint.bold("Exit codes")}
${codes.map(({ code, says }) => `  ${code}  ${says}`).join("\n")}
`;
}

function callOf(name: string, argument: Command["argument"]): string {
  return argument ? `${name} ${argument.words.join("|")}` : name;
}

function optionText({ name, short, value }: Option): string {
  return `${short ? `-${short}, ` : "    "}--${name}${value ? ` ${value}` : ""}`;
}

function columns(rows: readonly (readonly [string, string])[], paint: Painter): string {
  const width = Math.max(...rows.map(([left]) => left.length));
  return rows.map(([left, right]) => `  ${left.padEnd(width)}  ${paint.dim(right)}`.trimEnd()).join("\n");
}
