// How long no forwarder serves after a SIGKILL. The card is in this process here: it has to outlive the forwarder's.
import type { Client } from "../sandbox/nsm/client.ts";
import { KillableForwarder } from "../sandbox/process/killable.ts";
import { SANDBOX_RESOURCE, Sandbox } from "../sandbox/sandbox.ts";
import { systemClock as clock } from "../src/async/index.ts";
import { silentLog } from "../src/telemetry/index.ts";
import { type Distribution, distributionOf } from "./statistics.ts";

const PFS = 2;
const VFS = 64;
const CONNECTIONS = 32;

/**
 * Kills the forwarder with 32 connections standing and starts it again: from the start of the process until the manager knows
 * it, kubelet has the full list, and a client's refresh has been answered. In ms.
 */
export async function recoveryTimes(program: string, count: number): Promise<Distribution> {
  const machine = { pfs: PFS, vfsPerPf: VFS / PFS, realLinks: true };
  const sandbox = await Sandbox.start({ machine, settings: { adminListenOn: undefined }, log: silentLog, clock });
  const spawn = () => new KillableForwarder(sandbox, { program, logFile: `${sandbox.folder}/forwarder.log` });
  const listed = () => sandbox.kubelet.until(SANDBOX_RESOURCE, (devices) => devices.length === VFS);
  let forwarder = spawn();
  try {
    await Promise.all([forwarder.started, listed()]);
    const clients: Client[] = [];
    for (let pod = 0; pod < CONNECTIONS; pod += 1) clients.push((await sandbox.startPod(`pod-${pod}`)).client);
    for (const client of clients) await client.request();
    const samples: number[] = [];
    for (let done = 0; done < count; done += 1) {
      await forwarder.kill();
      const startedAt = performance.now();
      forwarder = spawn();
      await Promise.all([forwarder.started, listed()]);
      await clients[done % CONNECTIONS]?.request();
      samples.push(performance.now() - startedAt);
    }
    return distributionOf(samples);
  } finally {
    await forwarder.kill();
    await sandbox.stop();
  }
}
