// What may be said on the command line.
import { parseArgs } from "node:util";
import { configRows } from "./config.ts";
import { version } from "./version.ts";

/** What the command line asks for. `wrong` holds what to print before the process ends with `usageExitCode`. */
export type Command =
  | { readonly kind: "run" }
  | { readonly kind: "print"; readonly text: string }
  | { readonly kind: "wrong"; readonly text: string };

/** Exit code of a command line that makes no sense. */
export const usageExitCode = 2;

/** Reads the arguments after the program's name. */
export function readCommand(args: readonly string[]): Command {
  const options = { help: { type: "boolean", short: "h" }, version: { type: "boolean", short: "v" } } as const;
  try {
    const { values, positionals } = parseArgs({ args: [...args], options, allowPositionals: true, strict: true });
    if (values.help) return { kind: "print", text: helpText() };
    if (values.version) return { kind: "print", text: `forwarder ${version}\n` };
    if (positionals.length === 0) return { kind: "run" };
    return wrong(`there is no command "${positionals[0]}"`);
  } catch (error) {
    return wrong(error instanceof Error ? (error.message.split(". ")[0] ?? "") : String(error));
  }
}

function wrong(why: string): Command {
  return { kind: "wrong", text: `forwarder: ${why}; see forwarder --help\n` };
}

function helpText(): string {
  const rows = configRows();
  const width = Math.max(...rows.map((row) => row.names[0]?.length ?? 0));
  const variables = rows.map(({ names: [name = ""], standard }) => `  ${name.padEnd(width)}  ${standard}`.trimEnd());
  return `SR-IOV forwarder of Network Service Mesh ${version}

Usage:
  forwarder              run, with what the environment says
  forwarder --help       this text
  forwarder --version    the version

Example:
  NSM_NS_NAME=forwarder NSM_SRIOV_CONFIG_FILE=/etc/sriov.config \\
  SPIFFE_ENDPOINT_SOCKET=unix:///run/spire/sockets/agent.sock forwarder

Variables and their defaults (README.md says what they mean):
${variables.join("\n")}

Signals:
  TERM INT HUP QUIT      stop; connections stay up for the next start; a second one ends the process at once
  USR1 USR2              log level TRACE, and back to NSM_LOG_LEVEL

Exit codes: 0 stopped when asked, 1 could not start, 2 wrong command line, 70 a fault in the program
`;
}
