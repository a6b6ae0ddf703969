import type { Command, Given, Surroundings } from "../command.ts";
import { shellNames, shells } from "./shells.ts";

/** Prints the completion script of a shell. */
export async function completion(
  { words }: Given,
  { out }: Surroundings,
  commands: readonly Command[],
): Promise<number> {
  for (const name of shellNames) if (words[0] === name) out.write(shells[name](commands));
  return 0;
}
