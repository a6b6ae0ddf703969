// Other programs, run to their end.
import { spawn } from "node:child_process";

/** What the lab could not do, and what to do about it: a sentence for the person who started it. */
export class LabError extends Error {
  override readonly name = "LabError";
}

/**
 * Runs a program and answers with what it printed.
 * @throws {LabError} with the end of its error output when it fails or is not there.
 */
export function runProgram(
  command: string,
  args: readonly string[],
  options: { readonly cwd?: string; readonly input?: Buffer } = {},
): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const env = { ...process.env, LC_ALL: "C", DEBIAN_FRONTEND: "noninteractive" };
    const child = spawn(command, args, { cwd: options.cwd, env, stdio: ["pipe", "pipe", "pipe"] });
    const output: Buffer[] = [];
    let problem = "";
    child.stdout.on("data", (data: Buffer) => output.push(data));
    child.stderr.on("data", (data: Buffer) => (problem = `${problem}${data}`.slice(-4000)));
    child.stdin.on("error", () => {}); // it has ended before it read everything: its exit code says it
    child.stdin.end(options.input);
    child.on("error", (error) => reject(new LabError(`Cannot run ${command}: ${error.message}`)));
    child.on("close", (code, signal) => {
      if (code === 0) resolve(Buffer.concat(output));
      else reject(new LabError(`${command} ${args.at(-1) ?? ""} ended with ${code ?? signal}:\n${problem.trim()}`));
    });
  });
}
