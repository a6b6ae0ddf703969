// What is measured on one node, in the order in which it is done.
import { callAll, callInGroups, callOne } from "./calls.ts";
import type { LoopDelay } from "./node-messages.ts";
import type { Stage } from "./stage.ts";
import { type Distribution, distributionOf, percentile } from "./statistics.ts";

/** How much is measured. */
export interface Effort {
  /** First Requests, and Closes, one at a time. */
  readonly singles: number;
  /** Rounds of 32 at a time, and of 64. */
  readonly rounds: number;
  /** Restarts of kubelet, faults, and devices for pods. */
  readonly kubelet: number;
  /** Kills of the process. */
  readonly kills: number;
  /** Starts of the process on the smallest node. */
  readonly starts: number;
  /** Nodes on which the calls of many pods at once are measured, by their virtual functions. */
  readonly crowded: readonly number[];
}

export const efforts: Readonly<Record<"full" | "quick", Effort>> = {
  full: { singles: 200, rounds: 10, kubelet: 100, kills: 20, starts: 5, crowded: [64, 256] },
  quick: { singles: 24, rounds: 2, kubelet: 20, kills: 3, starts: 3, crowded: [64] },
};

/** Calls of one kind, measured as its callers saw them, in ms. */
export interface CallFigures {
  readonly request: Distribution;
  readonly refresh: Distribution;
  readonly close: Distribution;
}

/** How the forwarder's process did while 32 first Requests were under way. */
export interface BusyFigures extends CallFigures {
  readonly loopDelay: LoopDelay;
}

/** 64 first Requests at the same time, the median of the rounds. */
export interface ParallelFigures {
  readonly totalMs: number;
  readonly slowestMs: number;
}

/** From a bind to the network device, in place of a driver's own time: igbvf in a guest needs 50 ms for the unbind and 34 for the bind. */
export const EMULATED_NETDEV_MS = 85;

const WARM_UP = 24;
const AT_A_TIME = 32;
const REFRESHES = 2;
/** After load, until what was put off is done. */
const REST_MS = 1_500;

/** Some intervals of what is done in idleness, in seconds. */
const IDLE_S = 20;

/** Waits until no VF has a client or is being cleaned. Answers since when that is so, in ms of the monotonic clock. */
export async function allFree(stage: Stage): Promise<number> {
  return await stage.node.query<"all-free">({ kind: "all-free" });
}

/** Lets the forwarder's code become warm. */
export async function warmUp(stage: Stage, cycles = WARM_UP): Promise<void> {
  const pods = await stage.pods(Math.min(8, stage.vfs));
  for (let at = 0; at < cycles; at += pods.length) {
    await callAll(pods, "request");
    await callAll(pods, "request");
    await callAll(pods, "close");
  }
}

/**
 * First Request, two refreshes and Close of one pod after the other; `pods` are not connected before and after. With `rest` the next
 * one waits for it: what the forwarder does behind a Close's answer would be measured as the next Request's otherwise.
 */
export async function oneAtATime(
  pods: Parameters<typeof callAll>[0],
  count: number,
  rest: () => Promise<unknown> = async () => {},
): Promise<CallFigures> {
  const samples = { request: [] as number[], refresh: [] as number[], close: [] as number[] };
  for (let done = 0; done < count; done += 1) {
    const pod = pods[done % pods.length];
    if (!pod) throw new RangeError("Cannot measure without pods");
    samples.request.push(await callOne(pod, "request"));
    for (let refresh = 0; refresh < REFRESHES; refresh += 1) samples.refresh.push(await callOne(pod, "request"));
    samples.close.push(await callOne(pod, "close"));
    await rest();
  }
  return figuresOf(samples);
}

/** The same, 32 pods at a time. */
export async function manyAtATime(stage: Stage, rounds: number): Promise<BusyFigures> {
  const pods = await stage.pods(AT_A_TIME);
  const samples = { request: [] as number[], refresh: [] as number[], close: [] as number[] };
  const delays: LoopDelay[] = [];
  for (let round = 0; round < rounds; round += 1) {
    await stage.node.query<"watch-loop">({ kind: "watch-loop" });
    samples.request.push(...(await callAll(pods, "request")).eachMs);
    delays.push(await stage.node.query<"loop">({ kind: "loop" }));
    samples.refresh.push(...(await callAll(pods, "request")).eachMs);
    samples.close.push(...(await callAll(pods, "close")).eachMs);
    await allFree(stage);
  }
  return { ...figuresOf(samples), loopDelay: worstOf(delays) };
}

/** First Requests of 64 pods at the same moment. */
export async function sixtyFour(stage: Stage, rounds: number): Promise<ParallelFigures> {
  const pods = await stage.pods(64);
  const totals: number[] = [];
  const slowest: number[] = [];
  for (let round = 0; round < rounds; round += 1) {
    const { eachMs, totalMs } = await callAll(pods, "request");
    totals.push(totalMs);
    slowest.push(Math.max(...eachMs));
    await callAll(pods, "close");
    await allFree(stage);
  }
  return { totalMs: percentile(totals, 0.5), slowestMs: percentile(slowest, 0.5) };
}

/** From a Close's answer until its VF is another client's to have: its driver has made another device by then. In ms. */
export async function timesUntilFree(stage: Stage, count: number): Promise<Distribution> {
  await warmUp(stage);
  const [pod] = await stage.pods(1);
  if (!pod) throw new RangeError("Cannot measure without pods");
  await allFree(stage);
  const samples: number[] = [];
  for (let done = 0; done < count; done += 1) {
    await callOne(pod, "request");
    await callOne(pod, "close");
    const closedAtMs = Number(process.hrtime.bigint()) / 1e6;
    const freeAtMs = await allFree(stage);
    samples.push(Math.max(0, freeAtMs - closedAtMs));
  }
  return distributionOf(samples);
}

/** What a refresh that changes nothing writes to the kernel: of each of 100, all pods together. */
export async function writesOfRefresh(stage: Stage): Promise<number> {
  const pods = await stage.pods(Math.min(8, stage.vfs));
  await callAll(pods, "request");
  const before = await stage.node.query<"counts">({ kind: "counts" });
  for (let round = 0; round < 5; round += 1) await callAll(pods, "request");
  const after = await stage.node.query<"counts">({ kind: "counts" });
  await callAll(pods, "close");
  return after.netlinkWrites - before.netlinkWrites + after.fileWrites - before.fileWrites;
}

/** Resident memory in MiB when nothing happens. */
export async function restingRss(stage: Stage): Promise<number> {
  await new Promise((resolve) => setTimeout(resolve, REST_MS));
  return stage.node.rssMib;
}

/** CPU time of the process in ms a second when nothing happens: what looking at the node now and then costs. */
export async function restingCpu({ node }: Stage): Promise<number> {
  const before = node.cpuMs;
  await new Promise((resolve) => setTimeout(resolve, IDLE_S * 1000));
  return (node.cpuMs - before) / IDLE_S;
}

/** With every VF but eight in use: what the last eight cost, and the memory that all of them take. */
export async function fullHouse(
  stage: Stage,
  count: number,
): Promise<{ readonly calls: CallFigures; readonly rssMib: number }> {
  const pods = await stage.pods(stage.vfs);
  const [last, others] = [pods.slice(-8), pods.slice(0, -8)];
  await callInGroups(others, "request", 16);
  const calls = await oneAtATime(last, count);
  await callAll(last, "request");
  const rssMib = await restingRss(stage);
  await callInGroups(pods, "close", 16);
  return { calls, rssMib };
}

function figuresOf(samples: Readonly<Record<keyof CallFigures, readonly number[]>>): CallFigures {
  return {
    request: distributionOf(samples.request),
    refresh: distributionOf(samples.refresh),
    close: distributionOf(samples.close),
  };
}

function worstOf(delays: readonly LoopDelay[]): LoopDelay {
  const worst = (of: keyof LoopDelay) => Math.max(...delays.map((delay) => delay[of]));
  return { p50: worst("p50"), p99: worst("p99"), max: worst("max") };
}
