// One attack on a node: played, and judged by what the process and the innocents had meanwhile and afterwards.
import { get } from "node:http";
import { systemClock as clock } from "../../src/async/index.ts";
import type { Target, Way } from "./attacker/target.ts";
import { AttackerProcess, targetOf } from "./attacker-process.ts";
import type { Attack } from "./attacks.ts";
import { fillNamespace, netnsPathOf } from "./crowded-pod.ts";
import type { Holdings, HostileNode } from "./hostile-node.ts";
import { type Call, Innocent } from "./innocent.ts";
import { MIB } from "./memory-cgroup.ts";

const ATTACK_SECONDS = 2;

/** By then nothing of an attack is left: its tokens live 6 s, and handshakes 10. */
const SETTLE_MS = 30_000;

/** What an attack may take of the process, and leave. */
const BOUNDS = {
  /** 1,024 connections with what those without an identity may pass, 128 handshakes, 64 of the page. */
  moreFds: 2_300,
  moreThreads: 0,
  /** Files of the node that it reads, and connections to peers that it keeps for a while. */
  fdsAfterwards: 24,
  /** What the manifests give the pod, and the pages of the program's own file, which the kernel may reclaim. */
  rssBytes: (256 + 50) * MIB,
  /** V8 keeps what it has let grow; the next one must find room. */
  rssBytesAfterwards: 224 * MIB,
  /** For one name, with what is logged of the innocents meanwhile. */
  logBytesAMinute: 100_000,
  /** Of many names: each, all together, and of each of 64 what is kept when the others have used that up (src/telemetry/peer-logs.ts). */
  namesLogBytes: { each: 32_768, all: 163_840, kept: 2_048 },
  /** What an honest Request and its Close log, each. */
  logBytesACall: 1_000,
  /** Twice what all owners may have (docs/decisions/031), and the least at which it is written again. */
  journalBytes: 4 * MIB,
} as const;

function mostLogBytes({ identities = 1 }: Attack): number {
  const { each, all, kept } = BOUNDS.namesLogBytes;
  return Math.max(BOUNDS.logBytesAMinute, Math.min(each * identities, all + kept * Math.min(identities, 64)));
}

type Bound = readonly [what: string, found: number, bound: number];

interface Meanwhile {
  fds: number;
  threads: number;
  journalBytes: number;
}

/** What an attack was seen to do. */
export interface Outcome {
  readonly problems: readonly string[];
  /** What the attacker says. */
  readonly seen: string;
  /** Of the innocents. */
  readonly calls: readonly Call[];
  readonly retries: readonly string[];
  readonly most: Readonly<Meanwhile>;
  readonly memory: { readonly rssBytes: number; readonly cgroupBytes: number; readonly afterBytes: number };
  readonly logBytes: number;
  /** Of the forwarder, for the attack and the innocents. */
  readonly cpuMs: number;
  /** From the attack's end until it had left nothing. */
  readonly settledMs: number;
}

const NO_MEMORY = { rssBytes: 0, cgroupBytes: 0, afterBytes: 0 };

/** Plays it with the innocents beside, and judges what was seen. */
export async function play(node: HostileNode, attack: Attack, way: Way): Promise<Outcome> {
  const target = targetOf(node, attack, { way, seconds: attack.seconds ?? ATTACK_SECONDS });
  if (attack.crowdsANamespace) return await playWithCrowd(node, target, attack);
  if (!attack.knowsAPath) return await playWith(node, target, attack);
  const pathOfOther = await node.steady.begin();
  const outcome = await playWith(node, { ...target, pathOfOther }, attack);
  if (node.forwarder.end !== undefined) return outcome;
  return { ...outcome, problems: [...outcome.problems, ...(await node.steady.end(node.log))] };
}

async function playWithCrowd(node: HostileNode, target: Target, attack: Attack): Promise<Outcome> {
  const router = await node.sandbox.startPod("router");
  await fillNamespace(router);
  const over = new AbortController();
  const crowded = new Innocent("the crowded pod", router, () => router.client);
  const living = crowded
    .live(over.signal, () => node.forwarder.end === undefined)
    .then(
      ({ calls, retries }) => ({ calls, retries, problems: [] }),
      (error: unknown) => ({ calls: [], retries: [], problems: [`not served: ${String(error)}`] }),
    );
  const outcome = await playWith(node, { ...target, netns: netnsPathOf(router) }, attack, () => {
    over.abort();
    return living;
  });
  const { calls, retries, problems } = await living;
  const slowestMs = Math.round(Math.max(...calls.map(({ tookMs }) => tookMs)));
  const seen = `${calls.length} calls of its own in at most ${slowestMs} ms, ${outcome.seen}`;
  return { ...outcome, seen, retries: [...outcome.retries, ...retries], problems: [...outcome.problems, ...problems] };
}

async function playWith(
  node: HostileNode,
  target: Target,
  attack: Attack,
  end?: () => Promise<unknown>,
): Promise<Outcome> {
  const before = await node.holdings();
  const { limitReached, oomKills } = node.cgroup;
  const cpuBeforeMs = node.cpuMs;
  node.forgetPeak();
  const most: Meanwhile = { fds: 0, threads: 0, journalBytes: 0 };
  const { seen, calls, retries, problems } = await playBeside(node, most, target);
  await end?.();
  for (const retry of retries) if (attack.mayNotCause?.test(retry)) problems.push(`thrown out: ${retry}`);
  const played = { seen, calls, retries, problems, most };
  if (node.forwarder.end !== undefined) {
    const kills = node.cgroup.oomKills - oomKills;
    problems.unshift(`the process ended: ${node.forwarder.end}, ${kills} killed for memory`);
    return { ...played, memory: NO_MEMORY, cpuMs: 0, logBytes: 0, settledMs: 0 };
  }
  const cpuMs = node.cpuMs - cpuBeforeMs;
  const peaks = { rssBytes: node.peakRssBytes, cgroupBytes: node.cgroup.peakBytes };
  const { after, settledMs } = await settle(node, before);
  const logBytes = after.logBytes - before.logBytes;
  const minutes = Math.max(1, settledMs / 60_000);
  const logging = calls.filter(({ what }) => what !== "refresh").length;
  const bounds: readonly Bound[] = [
    ["descriptors meanwhile", most.fds, before.fds + (attack.moreFds ?? BOUNDS.moreFds)],
    ["threads meanwhile", most.threads, before.threads + BOUNDS.moreThreads],
    ["descriptors afterwards", after.fds, before.fds + BOUNDS.fdsAfterwards],
    ["connections afterwards", after.connections, before.connections],
    ["processes killed for memory", node.cgroup.oomKills, oomKills],
    ["times at the cgroup's limit", node.cgroup.limitReached, limitReached],
    ["bytes in the cgroup", peaks.cgroupBytes, node.limitBytes],
    ["bytes of RSS", peaks.rssBytes, BOUNDS.rssBytes],
    ["bytes of RSS afterwards", after.rssBytes, BOUNDS.rssBytesAfterwards],
    ["bytes of log", logBytes, mostLogBytes(attack) * minutes + BOUNDS.logBytesACall * logging],
    ["bytes of journal", most.journalBytes, BOUNDS.journalBytes],
  ];
  for (const [what, found, bound] of bounds) if (found > bound) problems.push(`${what}: ${found}, at most ${bound}`);
  return { ...played, memory: { ...peaks, afterBytes: after.rssBytes }, cpuMs, logBytes, settledMs };
}

/** The attack, and the innocents as long as it lasts. */
async function playBeside(node: HostileNode, most: Meanwhile, target: Target) {
  const over = new AbortController();
  const problems: string[] = [];
  const watching = watch(node, most, over.signal).catch((error: unknown) => problems.push(String(error)));
  const living = Promise.allSettled(
    node.innocents.map((innocent) => innocent.live(over.signal, () => node.forwarder.end === undefined)),
  );
  const probing = probe(node);
  const rounds = node.innocents.map((innocent) => innocent.rounds);
  const areServed = () => node.innocents.every((innocent, at) => innocent.rounds > (rounds[at] ?? 0));
  const isEnough = () => areServed() || node.forwarder.end !== undefined;
  const seen = await runAttacker(target, isEnough).catch((error: unknown) => {
    problems.push(String(error));
    return "";
  });
  over.abort();
  await watching;
  if (!(await probing)) problems.push("the probe of kubelet was not answered meanwhile");
  const calls: Call[] = [];
  const retries: string[] = [];
  for (const one of await living) {
    if (one.status === "rejected") problems.push(`not served: ${String(one.reason)}`);
    else {
      calls.push(...one.value.calls);
      retries.push(...one.value.retries);
    }
  }
  if (node.forwarder.end === undefined) await node.forgetAttackers();
  return { seen, calls, retries, problems };
}

/** It lasts at most so long: by then the innocents have given up. */
const LONGEST_MS = 70_000;

/** Attacks for its time, and until the innocents were served while it did. Answers with the last line that the attacker said. */
async function runAttacker(target: Target, isEnough: () => boolean): Promise<string> {
  const attacker = new AttackerProcess(target);
  const limit = setTimeout(() => attacker.kill(), LONGEST_MS);
  await attacker.begun();
  await Promise.race([attacker.ended(), clock.sleep(target.seconds * 1000)]);
  while (!attacker.isOver && !isEnough()) await clock.sleep(50);
  try {
    return await attacker.stop();
  } finally {
    clearTimeout(limit);
  }
}

async function watch(node: HostileNode, most: Meanwhile, signal: AbortSignal): Promise<void> {
  while (!signal.aborted && node.forwarder.end === undefined) {
    most.fds = Math.max(most.fds, node.fds);
    most.threads = Math.max(most.threads, node.threads);
    most.journalBytes = Math.max(most.journalBytes, node.journalBytes);
    await clock.sleep(50);
  }
}

/** Waits until what the attack took is given back. */
async function settle(
  node: HostileNode,
  before: Holdings,
): Promise<{ readonly after: Holdings; readonly settledMs: number }> {
  const startedAt = performance.now();
  for (;;) {
    const after = await node.holdings();
    const settledMs = Math.round(performance.now() - startedAt);
    const isSettled =
      after.fds <= before.fds + BOUNDS.fdsAfterwards &&
      after.connections <= before.connections &&
      after.rssBytes <= BOUNDS.rssBytesAfterwards;
    if (isSettled || settledMs > SETTLE_MS) return { after, settledMs };
    await clock.sleep(100);
  }
}

/** Kubelet restarts a container when it fails three times; these come sooner after each other than kubelet's. */
async function probe(node: HostileNode): Promise<boolean> {
  await clock.sleep(1_000); // for the attacker to begin
  for (let tried = 1; tried <= 3; tried += 1) {
    if (node.forwarder.end !== undefined || (await isHealthy(node))) return true;
    await clock.sleep(1_000);
  }
  return false;
}

/** Whether the probe of kubelet is answered. */
function isHealthy(node: HostileNode): Promise<boolean> {
  const { host, port } = node.admin;
  return new Promise((resolve) => {
    get({ host, port, path: "/healthz", timeout: 10_000 }, (response) => {
      response.resume();
      resolve(response.statusCode === 200);
    })
      .on("timeout", () => resolve(false))
      .on("error", () => resolve(false));
  });
}
