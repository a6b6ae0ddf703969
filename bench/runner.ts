import { type HostileFigures, hostileFigures, hostileLacks } from "./hostile.ts";
import { kubeletFigures } from "./kubelet.ts";
import {
  allFree,
  type Effort,
  EMULATED_NETDEV_MS,
  efforts,
  fullHouse,
  manyAtATime,
  oneAtATime,
  restingCpu,
  restingRss,
  sixtyFour,
  timesUntilFree,
  warmUp,
  writesOfRefresh,
} from "./measure.ts";
import { recoveryTimes } from "./recovery.ts";
import type { NamedKubeletFigures, NodeFigures } from "./report.ts";
import { type SoakFigures, soak } from "./soak.ts";
import { Stage, type StageOptions, type StartFigures } from "./stage.ts";
import type { Distribution } from "./statistics.ts";

/** Nodes that are measured, by their virtual functions. */
const SIZES = [8, 64, 256];
/** Nodes on which kubelet is measured: VFs, and resource names of each. */
const KUBELET_NODES = [
  [64, 2],
  [256, 2],
  [256, 6],
] as const;
const SMALLEST = 8;
const LARGEST = 256;

/** What is measured. */
export interface Measured {
  readonly nodes: readonly NodeFigures[];
  /** By VFs and resource names of each. */
  readonly kubelet: readonly NamedKubeletFigures[];
  /** From a SIGKILL on; without links there is nothing to recover. */
  readonly recovery: Distribution | undefined;
  /** Undefined where they were left out, which is reported. */
  readonly hostile: HostileFigures | undefined;
}

export interface RunnerOptions extends Omit<StageOptions, "vfs"> {
  /** The forwarder alone, to be killed. */
  readonly killableProgram: string;
  readonly isQuick: boolean;
  /** Hears what is being done. */
  readonly report: (line: string) => void;
  /** Aborted when the person wants to leave. */
  readonly signal: AbortSignal;
}

/** Opens node after node and measures it; takes each down whatever happens. */
export class Runner {
  readonly #options: RunnerOptions;

  constructor(options: RunnerOptions) {
    this.#options = options;
  }

  async measure(): Promise<Measured> {
    const { report, realLinks, isQuick, killableProgram, signal } = this.#options;
    const { kubelet, kills } = efforts[isQuick ? "quick" : "full"];
    const nodes: NodeFigures[] = [];
    for (const vfs of SIZES) nodes.push(await this.#measureNode(vfs));
    const kubelets: NamedKubeletFigures[] = [];
    for (const [vfs, names] of KUBELET_NODES) {
      report(`kubelet, ${vfs} VFs with ${names} resource names …`);
      // Each device that is measured is held until the end.
      const count = Math.min(kubelet, vfs / 2);
      const more = { realLinks: false, hasManyNames: names === 6 };
      kubelets.push({ vfs, names, ...(await this.#on(vfs, (stage) => kubeletFigures(stage, count), more)) });
    }
    signal.throwIfAborted();
    report("kills and restarts …");
    const recovery = realLinks ? await recoveryTimes(killableProgram, kills) : undefined;
    const hostile = isQuick ? undefined : await this.hostile();
    if (isQuick)
      report("Innocents under attack are left out of a quick run: npm run bench -- --hostile measures them.");
    return { nodes, kubelet: kubelets, recovery, hostile };
  }

  /** Innocents under attack; undefined where the machine lacks what that needs. */
  async hostile(): Promise<HostileFigures | undefined> {
    const { report, killableProgram: program, signal } = this.#options;
    signal.throwIfAborted();
    const lacks = hostileLacks();
    if (lacks.length === 0) return await hostileFigures({ program, report, signal });
    report(`Innocents under attack are not measured: that needs ${lacks.join(", ")}, which this machine has not.`);
    return undefined;
  }

  soak(cycles: number): Promise<SoakFigures> {
    return this.#on(8, async (stage) => {
      await warmUp(stage);
      return await soak(stage, cycles, this.#options.report);
    });
  }

  async #measureNode(vfs: number): Promise<NodeFigures> {
    const { report, isQuick, realLinks } = this.#options;
    const effort = efforts[isQuick ? "quick" : "full"];
    const starts: StartFigures[] = [];
    for (let more = vfs === SMALLEST ? effort.starts - 1 : 0; more > 0; more -= 1) {
      starts.push(await this.#on(vfs, async ({ start }) => start));
    }
    const figures = await this.#on(vfs, async (stage) => {
      report(`a node with ${vfs} VFs …`);
      starts.push(stage.start);
      const rssIdleMib = await restingRss(stage);
      const cpuIdle = vfs === LARGEST ? { cpuIdleMsPerS: await restingCpu(stage) } : {};
      return { vfs, starts, rssIdleMib, ...cpuIdle, ...(realLinks && (await measureCalls(stage, effort))) };
    });
    if (!realLinks || vfs !== SMALLEST) return figures;
    const slowDriver = { netdevDelayMs: EMULATED_NETDEV_MS };
    return { ...figures, untilFree: await this.#on(vfs, (stage) => timesUntilFree(stage, effort.singles), slowDriver) };
  }

  /** The work ends with an error as soon as the person wants to leave. */
  async #on<T>(vfs: number, work: (stage: Stage) => Promise<T>, changes: Partial<StageOptions> = {}): Promise<T> {
    const { signal } = this.#options;
    signal.throwIfAborted();
    const stage = await Stage.open({ ...this.#options, ...changes, vfs });
    const leave = Promise.withResolvers<never>();
    const left = () => leave.reject(signal.reason);
    signal.addEventListener("abort", left, { once: true });
    try {
      signal.throwIfAborted();
      return await Promise.race([work(stage), leave.promise]);
    } finally {
      signal.removeEventListener("abort", left);
      await stage.close();
    }
  }
}

async function measureCalls(stage: Stage, effort: Effort): Promise<Partial<NodeFigures>> {
  const { singles, rounds, crowded } = effort;
  await warmUp(stage);
  const one = await oneAtATime(await stage.pods(8), singles, () => allFree(stage));
  const refreshWrites = await writesOfRefresh(stage);
  const crowd = crowded.includes(stage.vfs)
    ? { many: await manyAtATime(stage, rounds), parallel: await sixtyFour(stage, rounds) }
    : {};
  const full = stage.vfs === LARGEST ? { full: await fullHouse(stage, singles) } : {};
  return { one, refreshWrites, ...crowd, ...full };
}
