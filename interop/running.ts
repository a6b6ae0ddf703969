import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import type { Machine } from "../sandbox/machine/machine.ts";
import { KillableForwarder } from "../sandbox/process/killable.ts";
import { startSandboxForwarder } from "../sandbox/start-forwarder.ts";
import { openDeviceAccess } from "../src/access/index.ts";
import { systemClock } from "../src/async/index.ts";
import type { Config } from "../src/config.ts";
import type { Forwarder } from "../src/forwarder.ts";
import type { Host } from "../src/node/index.ts";
import { parsePfConfig } from "../src/pci/index.ts";
import { createLog, createMetrics } from "../src/telemetry/index.ts";

// The collector, which programs do not see otherwise.
setFlagsFromString("--expose-gc");
const collect: () => void = runInNewContext("gc");

/** What the Go side can have done with the forwarder, by its word; what it answers is JSON. */
export type Commands = Readonly<Record<string, () => unknown>>;

/** The forwarder in this process: what it takes of the kernel is this process's. */
export function forwarderHere(machine: Machine, config: Config): Commands {
  const log = createLog({ level: config.logLevel });
  /** What the card writes down for tests; it is not read here, and it would look like a leak of the forwarder. */
  const memories = new Set<unknown[]>();
  const host: Host = {
    ...machine,
    openAccess: (parts) => openDeviceAccess({ ...parts, cgroupPath: config.cgroupPath }),
    pfPort(pf) {
      const port = machine.pfPort(pf);
      memories.add(port.writes);
      return port;
    },
  };
  let running: Forwarder | undefined;
  let abort = new AbortController();
  return {
    async start() {
      abort = new AbortController();
      const metrics = createMetrics();
      metrics.addProcessMetrics();
      const pfConfig = parsePfConfig(machine.configText, config.sriovConfigFile);
      const parts = { settings: config, pfConfig, host, metrics, clock: systemClock, log };
      running = await startSandboxForwarder({ ...parts, signal: abort.signal });
    },
    /** As SIGTERM does: connections stay as they are. */
    async stop() {
      abort.abort(new Error("asked to stop"));
      await running?.stop();
      running = undefined;
    },
    forget() {
      for (const memory of memories) memory.length = 0;
    },
    /** Bytes in use, garbage not counted. */
    live() {
      collect();
      const { heapUsed, external } = process.memoryUsage();
      return heapUsed + external;
    },
    connections: () => running?.nsm.connectionCount,
    /** VFs that connections have. */
    held: () => running?.node.inventory.snapshot().filter(({ connectionId }) => connectionId !== undefined).length,
  };
}

/** The forwarder in a process of its own, which `kill` ends by SIGKILL; `start` starts the next one on the same card. */
export function forwarderBeside(machine: Machine, config: Config, program: string): Commands {
  const { cgroupPath } = config;
  const node = { machine, forwarderSettings: config, pfConfigFile: { text: machine.configText }, cgroupPath };
  let running: KillableForwarder | undefined;
  const kill = async () => {
    await running?.kill();
    running = undefined;
  };
  return {
    async start() {
      running = new KillableForwarder(node, { program, logFile: "/dev/stderr" });
      await running.started;
    },
    stop: kill,
    kill,
    connections: async () => (await running?.inventory())?.connections,
    held: async () => (await running?.inventory())?.vfs.filter(({ isHeld }) => isHeld).length,
  };
}
