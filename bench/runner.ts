import {
  type Effort,
  efforts,
  fullHouse,
  manyAtATime,
  oneAtATime,
  restingRss,
  sixtyFour,
  warmUp,
  writesOfRefresh,
} from "./measure.ts";
import type { NodeFigures } from "./report.ts";
import { type SoakFigures, soak } from "./soak.ts";
import { Stage, type StageOptions, type StartFigures } from "./stage.ts";

/** Nodes that are measured, by their virtual functions. */
const SIZES = [8, 64, 256];
const SMALLEST = 8;
const LARGEST = 256;

export interface RunnerOptions extends Omit<StageOptions, "vfs"> {
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

  async measure(): Promise<readonly NodeFigures[]> {
    const nodes: NodeFigures[] = [];
    for (const vfs of SIZES) nodes.push(await this.#measureNode(vfs));
    return nodes;
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
      return { vfs, starts, rssIdleMib, ...(realLinks && (await measureCalls(stage, effort))) };
    });
  }

  /** The work ends with an error as soon as the person wants to leave. */
  async #on<T>(vfs: number, work: (stage: Stage) => Promise<T>): Promise<T> {
    const { signal } = this.#options;
    signal.throwIfAborted();
    const stage = await Stage.open({ ...this.#options, vfs });
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
