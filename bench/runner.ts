import { kubeletFigures } from "./kubelet.ts";
import {
  type Effort,
  efforts,
  fullHouse,
  manyAtATime,
  oneAtATime,
  restingCpu,
  restingRss,
  sixtyFour,
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
}

export interface RunnerOptions extends Omit<StageOptions, "vfs"> {
  /** The forwarder alone, to be killed. */
  readonly killableProgram: string;
  readonly isQuick: boolean;
  /** Hears what is being done. */
  readonly tell: (line: string) => void;
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
    const { tell, realLinks, isQuick, killableProgram, signal } = this.#options;
    const { kubelet, kills } = efforts[isQuick ? "quick" : "full"];
    const nodes: NodeFigures[] = [];
    for (const vfs of SIZES) nodes.push(await this.#measureNode(vfs));
    const kubelets: NamedKubeletFigures[] = [];
    for (const [vfs, names] of KUBELET_NODES) {
      tell(`kubelet, ${vfs} virtual functions with ${names} resource names …`);
      // Each device that is measured is held until the end.
      const count = Math.min(kubelet, vfs / 2);
      const more = { realLinks: false, hasManyNames: names === 6 };
      kubelets.push({ vfs, names, ...(await this.#on(vfs, (stage) => kubeletFigures(stage, count), more)) });
    }
    signal.throwIfAborted();
    tell("kills and restarts …");
    const recovery = realLinks ? await recoveryTimes(killableProgram, kills) : undefined;
    return { nodes, kubelet: kubelets, recovery };
  }

  soak(cycles: number): Promise<SoakFigures> {
    return this.#on(8, async (stage) => {
      await warmUp(stage);
      return await soak(stage, cycles, this.#options.tell);
    });
  }

  async #measureNode(vfs: number): Promise<NodeFigures> {
    const { tell, isQuick, realLinks } = this.#options;
    const effort = efforts[isQuick ? "quick" : "full"];
    const starts: StartFigures[] = [];
    for (let more = vfs === SMALLEST ? effort.starts - 1 : 0; more > 0; more -= 1) {
      starts.push(await this.#on(vfs, async ({ start }) => start));
    }
    return await this.#on(vfs, async (stage) => {
      tell(`a node with ${vfs} virtual functions …`);
      starts.push(stage.start);
      const rssIdleMib = await restingRss(stage);
      const cpuIdle = vfs === LARGEST ? { cpuIdleMsPerS: await restingCpu(stage) } : {};
      return { vfs, starts, rssIdleMib, ...cpuIdle, ...(realLinks && (await measureCalls(stage, effort))) };
    });
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
  const one = await oneAtATime(await stage.pods(8), singles);
  const refreshWrites = await writesOfRefresh(stage);
  const crowd = crowded.includes(stage.vfs)
    ? { many: await manyAtATime(stage, rounds), parallel: await sixtyFour(stage, rounds) }
    : {};
  const full = stage.vfs === LARGEST ? { full: await fullHouse(stage, singles) } : {};
  return { one, refreshWrites, ...crowd, ...full };
}
