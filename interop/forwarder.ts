// The forwarder as a process among Go peers: settings come from the environment as in production, the card is a pretend one.
// Arguments: how many virtual functions. Commands on standard input, one a line; each is answered by a line of JSON.
import { createInterface } from "node:readline";
import { startMachine } from "../sandbox/machine.ts";
import { openDeviceAccess } from "../src/access/index.ts";
import { systemClock } from "../src/async/index.ts";
import { parseConfig } from "../src/config.ts";
import { type Forwarder, startForwarder } from "../src/forwarder.ts";
import type { Host } from "../src/host.ts";
import { parsePfConfig } from "../src/sriov/index.ts";
import { createLog, createMetrics } from "../src/telemetry/index.ts";

const PFS = 2;

const { config } = parseConfig(process.env);
const log = createLog({ level: config.logLevel });
const machine = await startMachine({ pfs: PFS, vfsPerPf: Number(process.argv[2]) / PFS, realLinks: true });
const pfConfig = parsePfConfig(machine.configText, config.sriovConfigFile);
/** What the card writes down for tests; nobody reads it here, and it would look like a leak of the forwarder. */
const memories = new Set<unknown[]>();
let running: Forwarder | undefined;
let abort = new AbortController();

const host: Host = {
  ...machine,
  openAccess: (parts) => openDeviceAccess({ ...parts, cgroupPath: config.cgroupPath }),
  pfPort(pf) {
    const port = machine.pfPort(pf);
    memories.add(port.writes);
    return port;
  },
};

async function start(): Promise<string> {
  abort = new AbortController();
  const metrics = createMetrics();
  metrics.addProcessMetrics();
  const parts = { settings: config, pfConfig, host, metrics, clock: systemClock, log };
  running = await startForwarder({ ...parts, signal: abort.signal });
  return running.url;
}

/** As SIGTERM does: connections stay as they are. */
async function stop(): Promise<void> {
  abort.abort(new Error("asked to stop"));
  await running?.stop();
  running = undefined;
}

function forget(): void {
  for (const memory of memories) memory.length = 0;
}

const commands: Readonly<Record<string, () => unknown>> = {
  start,
  stop,
  forget,
  connections: () => running?.nsm.connectionCount,
  /** Functions that somebody has. */
  held: () => running?.node.inventory.snapshot().filter(({ connectionId }) => connectionId !== undefined).length,
};

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
// Whoever gives the commands is gone.
await stop();
await machine.stop();
process.exit(0);
