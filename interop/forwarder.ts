// The forwarder as a process among Go peers: settings come from the environment as in production, the card is a pretend one.
// Arguments: how many virtual functions. Commands on standard input, one a line; each is answered by a line of JSON.
import { createInterface } from "node:readline";
import { startMachine } from "../sandbox/machine/machine.ts";
import { commonStandIns } from "../sandbox/nic/sysfs.ts";
import { parseConfig } from "../src/config.ts";
import { forwarderBeside, forwarderHere } from "./running.ts";

const PFS = 2;

const { config } = parseConfig(process.env);
const vfsPerPf = Number(process.argv[2]) / PFS;
const machine = await startMachine({ pfs: PFS, vfsPerPf, realLinks: true, vfioStandIns: commonStandIns });
// The program of a forwarder that can be killed while its card lives on.
const program = process.env["INTEROP_KILLABLE"];
const commands = program === undefined ? forwarderHere(machine, config) : forwarderBeside(machine, config, program);

async function answer(command: string): Promise<object> {
  try {
    const act = commands[command];
    if (!act) throw new Error(`Cannot do "${command}": there are ${Object.keys(commands).join(", ")}`);
    return { done: (await act()) ?? null };
  } catch (error) {
    return { failed: error instanceof Error ? error.message : String(error) };
  }
}

for await (const command of createInterface({ input: process.stdin })) {
  process.stdout.write(`${JSON.stringify(await answer(command))}\n`);
}
// The sender of the commands is gone.
await commands["stop"]?.();
await machine.stop();
process.exit(0);
