// How innocents fare under attacks of the hostile tier, and how under the same CPU load without an attack.
import { systemClock as clock } from "../src/async/index.ts";
import type { Way } from "../test/hostile/attacker/target.ts";
import { AttackerProcess, targetOf } from "../test/hostile/attacker-process.ts";
import { type Attack, attacks } from "../test/hostile/attacks.ts";
import { HOSTILE_NEEDS, HostileNode } from "../test/hostile/hostile-node.ts";
import type { Served } from "../test/hostile/innocent.ts";
import { has } from "../test/needs.ts";
import { type InnocentTimes, timesOf } from "./innocent-times.ts";
import { type Load, loadOfAttacker, noLoad, startBurners } from "./load.ts";

/** Those that stand for the others: a flood, large messages, handshakes, held connections, and what comes through the manager. */
const PLAYED: readonly { readonly says: RegExp; readonly way: Way }[] = [
  { says: /a thousand failing Requests/, way: "direct" },
  { says: /256 KB of empty elements/, way: "direct" },
  { says: /a whole ClientHello/, way: "direct" },
  { says: /idle connections of 64 SVIDs/, way: "direct" },
  { says: /a thousand failing Requests/, way: "manager" },
];

/** What the manifests give the pod. */
const LIMIT_MIB = 256;

const WARM_UP_MS = 2_000;
const WINDOW_MS = 3_000;
/** What an attack has left is given up by then, or is not waited for longer. */
const SETTLE_MS = 3_000;
/** No attack begins that could end after so long from the section's start. */
const BUDGET_MS = 55_000;
/** An attack with its rest, the start of its processes, and its load; a busy machine needs longer, as the ones before have shown. */
const ATTACK_MS = 2 * WINDOW_MS + SETTLE_MS + 1_000;

/** The innocents during one window, and who had the processors meanwhile. */
export interface Window {
  readonly times: InnocentTimes;
  /** Tries that failed. */
  readonly retries: number;
  /** In processors: 1 is all the time of one. */
  readonly load: number;
  readonly forwarder: number;
}

export interface AttackFigures {
  readonly says: string;
  readonly way: Way;
  readonly attacked: Window;
  /** Under burners that take what the attacker took. */
  readonly loaded: Window;
}

export interface HostileFigures {
  readonly alone: Window;
  readonly attacks: readonly AttackFigures[];
  /** Attacks for which there was no time left. */
  readonly leftOut: readonly string[];
}

/** What this machine lacks for it. */
export function hostileLacks(): readonly string[] {
  return HOSTILE_NEEDS.filter((need) => !has(need));
}

export interface HostileOptions {
  /** The sandbox's forwarder, bundled. */
  readonly program: string;
  readonly report: (line: string) => void;
  /** Aborted when the person wants to leave. */
  readonly signal: AbortSignal;
}

/** Takes a minute at most. @throws when an innocent is not served, which the hostile tier looks into. */
export async function hostileFigures({ program, report, signal }: HostileOptions): Promise<HostileFigures> {
  const endsAtMs = performance.now() + BUDGET_MS;
  const node = await HostileNode.open(LIMIT_MIB, program);
  try {
    await lived(node, { load: noLoad, signal, windowMs: WARM_UP_MS });
    const alone = await lived(node, { load: noLoad, signal });
    const played: AttackFigures[] = [];
    const leftOut: string[] = [];
    let longestMs = ATTACK_MS;
    for (const { attack, way } of chosen()) {
      const { says } = attack;
      const startedAtMs = performance.now();
      if (startedAtMs + longestMs > endsAtMs) leftOut.push(`${says} (${way})`);
      else {
        report(`innocents, while a peer ${says} (${way}) …`);
        played.push({ says, way, ...(await besideAttack(node, { attack, way, signal })) });
        longestMs = Math.max(longestMs, performance.now() - startedAtMs);
      }
    }
    return { alone, attacks: played, leftOut };
  } finally {
    await node.close();
  }
}

function chosen(): readonly { readonly attack: Attack; readonly way: Way }[] {
  return PLAYED.map(({ says, way }) => {
    const attack = attacks.find((one) => says.test(one.says) && one.ways.includes(way));
    if (!attack) throw new Error(`Cannot play an attack that matches ${says}: the hostile tier has none (${way})`);
    return { attack, way };
  });
}

async function besideAttack(
  node: HostileNode,
  { attack, way, signal }: { readonly attack: Attack; readonly way: Way; readonly signal: AbortSignal },
): Promise<Pick<AttackFigures, "attacked" | "loaded">> {
  const attacker = new AttackerProcess(targetOf(node, attack, { way, seconds: WINDOW_MS / 1000 }));
  await attacker.begun();
  const attacked = await lived(node, { load: loadOfAttacker(attacker), signal });
  await settle(node, signal);
  const loaded = await lived(node, { load: await startBurners(attacked.load), signal });
  return { attacked, loaded };
}

/** The innocents beside a load, for a window. */
async function lived(
  node: HostileNode,
  { load, signal, windowMs = WINDOW_MS }: { readonly load: Load; readonly signal: AbortSignal; windowMs?: number },
): Promise<Window> {
  const over = new AbortController();
  const before = usedBy(node, load);
  const living = Promise.allSettled(node.innocents.map((one) => one.live(over.signal, () => isAlive(node))));
  let after = before;
  try {
    await clock.sleep(windowMs, signal);
    after = usedBy(node, load);
  } finally {
    over.abort();
    await load.stop();
    await living;
  }
  const served = (await living).map(servedOf);
  const innocents = node.innocents.map(({ name }, at) => ({ name, calls: served[at]?.calls ?? [] }));
  const tookMs = after.atMs - before.atMs;
  return {
    times: timesOf(innocents, after.atMs),
    retries: served.reduce((sum, { retries }) => sum + retries.length, 0),
    load: (after.loadMs - before.loadMs) / tookMs,
    forwarder: (after.forwarderMs - before.forwarderMs) / tookMs,
  };
}

function isAlive(node: HostileNode): boolean {
  return node.forwarder.end === undefined;
}

/** CPU time so far. */
function usedBy(node: HostileNode, load: Load) {
  const forwarderMs = isAlive(node) ? node.cpuMs : Number.NaN;
  return { atMs: performance.now(), loadMs: load.cpuMs(), forwarderMs };
}

function servedOf(one: PromiseSettledResult<Served>): Served {
  if (one.status === "rejected") throw new Error("Cannot measure an innocent: it is not served", { cause: one.reason });
  return one.value;
}

/** Until the forwarder has nothing left to do, so that the next window is not the attack's. */
async function settle(node: HostileNode, signal: AbortSignal): Promise<void> {
  const limitMs = performance.now() + SETTLE_MS;
  const REST_MS = 250;
  let [before, isAtRest] = [node.cpuMs, false];
  while (!isAtRest && performance.now() < limitMs) {
    await clock.sleep(REST_MS, signal);
    const now = node.cpuMs;
    isAtRest = now - before <= REST_MS / 10;
    before = now;
  }
}
