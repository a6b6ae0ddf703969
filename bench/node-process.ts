// The process of the forwarder: the pretend card, which must share its memory, and the forwarder as main.ts starts it.
import { type ELDHistogram, monitorEventLoopDelay } from "node:perf_hooks";
import type { Machine } from "../sandbox/machine/machine.ts";
import type { Inventory, VfState } from "../src/inventory/index.ts";
import type { Netns } from "../src/kernel/index.ts";
import type { Answers, Counts, LoopDelay, Question, Started } from "./node-messages.ts";

// Loaded first and alone, so that the time it takes can be measured.
const { startSandboxForwarder } = await import("../sandbox/start-forwarder.ts");
const { createLog, createMetrics } = await import("../src/telemetry/index.ts");
const { parsePfConfig } = await import("../src/pci/index.ts");
const { systemClock } = await import("../src/async/index.ts");
const { Rtnl } = await import("../src/kernel/index.ts");
const loadMs = performance.now();
const { startMachine } = await import("../sandbox/machine/machine.ts");
const { ChangeWatch } = await import("../sandbox/nic/change-watch.ts");

const LOOP_RESOLUTION_MS = 1;
const changes = new ChangeWatch();
const stopping = new AbortController();
const running: (() => Promise<void>)[] = [];
/** What the pretend card writes down for tests; it grows with each call, and would look like a leak of the forwarder. */
const memories: unknown[][] = [changes.seen];
let fileWrites = 0;
let machine: Machine | undefined;
let loop: ELDHistogram | undefined;
const isAtRest: ReadonlySet<VfState> = new Set(["idle", "reserved"]);
/** The moment since which all VFs are free. */
let free = Promise.withResolvers<number>();

async function start(request: Extract<Question, { kind: "start" }>): Promise<Started> {
  const { pfs, vfsPerPf, realLinks, netdevDelayMs, hasManyNames, settings } = request;
  machine = await startMachine({ pfs, vfsPerPf, realLinks, netdevDelayMs });
  const card = machine;
  running.push(() => card.stop());
  const host = {
    devices: changes.watchFiles("devices", card.devices),
    drivers: changes.watchFiles("drivers", card.drivers),
    vfio: card.vfio,
    uevents: card.uevents,
    netns: card.netns,
    queryEswitchMode: (pf: string) => card.queryEswitchMode(pf),
    openRtnl: (netns: Netns) => card.openRtnl(netns),
    linkOwnerOf: card.linkOwnerOf,
    linkSettings: card.linkSettings,
    pfLink: card.pfLink,
    locks: card.locks,
    disk: card.disk,
    random: card.random,
    openFolder: card.openFolder,
    watchFolder: card.watchFolder,
    netnsOf: card.netnsOf,
    unixListeners: card.unixListeners,
    pfPort(pf: { readonly address: string }) {
      const port = card.pfPort(pf);
      memories.push(port.writes);
      return changes.watchPort(pf.address, port);
    },
    openAccess() {
      throw new Error("The benchmark gives no VFIO");
    },
  };
  const pfConfig = parsePfConfig(hasManyNames ? manyNames(card.configText) : card.configText, "pci.config");
  const metrics = createMetrics();
  metrics.addProcessMetrics();
  const log = createLog({ level: "info" });
  const calledAtMs = Number(process.hrtime.bigint()) / 1e6;
  const startedAtMs = performance.now();
  const parts = { settings, pfConfig, host, metrics, clock: systemClock, log, signal: stopping.signal };
  const forwarder = await startSandboxForwarder(parts);
  running.push(() => forwarder.stop());
  watchFree(forwarder.node.inventory);
  return { loadMs, startMs: performance.now() - startedAtMs, calledAtMs };
}

/** Two service domains and three capabilities. */
function manyNames(text: string): string {
  return text
    .replaceAll("[intel, 10G]", "[intel, 10G, e810]")
    .replaceAll("[worker.domain]", "[worker.domain, other.domain]");
}

async function fault(isOver: boolean): Promise<number> {
  const [address] = machine?.configText.match(/[0-9a-f]{4}:[0-9a-f:.]+(?=:\n)/) ?? [];
  if (!machine || address === undefined) throw new Error("Cannot make a fault: there is no card");
  const atMs = Number(process.hrtime.bigint()) / 1e6;
  await machine.drivers.writeText(isOver ? "igb/bind" : "igb/unbind", address);
  return atMs;
}

function counts(): Counts {
  const { reads, writes } = Rtnl.totals;
  fileWrites += changes.seen.length;
  for (const memory of memories) memory.length = 0;
  return { netlinkReads: reads, netlinkWrites: writes, fileWrites };
}

function watchLoop(): null {
  loop?.disable();
  loop = monitorEventLoopDelay({ resolution: LOOP_RESOLUTION_MS });
  loop.enable();
  return null;
}

function loopDelay(): LoopDelay {
  if (!loop) throw new Error("Cannot measure the delay of the event loop: it is not watched");
  loop.disable();
  const late = (ns: number) => Math.max(0, ns / 1e6 - LOOP_RESOLUTION_MS);
  return { p50: late(loop.percentile(50)), p99: late(loop.percentile(99)), max: late(loop.max) };
}

function watchFree(inventory: Inventory): void {
  let wasFree = false;
  const hear = () => {
    const isFree = inventory.snapshot().every(({ state, problem }) => isAtRest.has(state) && problem === undefined);
    if (isFree === wasFree) return;
    wasFree = isFree;
    if (isFree) free.resolve(Number(process.hrtime.bigint()) / 1e6);
    else free = Promise.withResolvers();
  };
  hear();
  inventory.onChange(hear);
}

async function stop(): Promise<null> {
  stopping.abort(new Error("the bench is over"));
  for (const end of running.splice(0).reverse()) await end();
  return null;
}

async function answer(question: Question): Promise<Answers[keyof Answers]> {
  switch (question.kind) {
    case "start":
      return await start(question);
    case "counts":
      return counts();
    case "watch-loop":
      return watchLoop();
    case "loop":
      return loopDelay();
    case "all-free":
      return await free.promise;
    case "fault":
      return await fault(question.isOver);
    case "stop":
      return await stop();
  }
}

process.on("message", (question: Question) => {
  answer(question).then(
    (found) => process.send?.({ answer: found }),
    (error: unknown) => process.send?.({ failure: error instanceof Error ? (error.stack ?? error.message) : error }),
  );
});
// The caller is gone: links and namespaces go with this process, files are the other's.
process.on("disconnect", () => process.exit(0));
// Ctrl-C reaches every process of the terminal; the bench says when this one is to end.
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(signal, () => {});
