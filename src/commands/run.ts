import type { Surroundings } from "./command.ts";
import { readCommandLine } from "./command-line.ts";
import { commands } from "./commands.ts";
import { commandHelp, programHelp, USAGE_EXIT_CODE } from "./help.ts";

/** Does what the arguments after the program's name request. Answers the exit code. */
export async function runCommandLine(args: readonly string[], surroundings: Surroundings): Promise<number> {
  const choice = readCommandLine(args, commands);
  const { out, err, version } = surroundings;
  switch (choice.kind) {
    case "version":
      out.write(`forwarder ${version}\n`);
      return 0;
    case "help":
      out.write(choice.command ? commandHelp(choice.command, surroundings) : programHelp(commands, surroundings));
      return 0;
    case "wrong": {
      const name = ["forwarder", choice.command?.name].filter(Boolean).join(" ");
      err.write(`${name}: ${choice.why}; see ${name} --help\n`);
      return USAGE_EXIT_CODE;
    }
    case "command":
      return choice.command.run(choice.given, surroundings);
  }
}
