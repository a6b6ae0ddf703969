import type { Surroundings } from "./command.ts";
import { readCommandLine } from "./command-line.ts";
import { commands } from "./commands.ts";
import { commandHelp, programHelp, USAGE_EXIT_CODE } from "./help.ts";

/** Does what the arguments after the program's name request. Answers the exit code. */
export async function runCommandLine(args: readonly string[], surroundings: Surroundings): Promise<number> {
  const asked = readCommandLine(args, commands);
  const { out, err, version } = surroundings;
  switch (asked.kind) {
    case "version":
      out.write(`forwarder ${version}\n`);
      return 0;
    case "help":
      out.write(asked.command ? commandHelp(asked.command, surroundings) : programHelp(commands, surroundings));
      return 0;
    case "wrong": {
      const name = ["forwarder", asked.command?.name].filter(Boolean).join(" ");
      err.write(`${name}: ${asked.why}; see ${name} --help\n`);
      return USAGE_EXIT_CODE;
    }
    case "command":
      return asked.command.run(asked.given, surroundings);
  }
}
