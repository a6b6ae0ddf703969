import { callAll } from "./calls.ts";
import type { Stage } from "./stage.ts";
import { slopeOf } from "./statistics.ts";

/** What many rounds of Request and Close left behind in the forwarder's process. */
export interface SoakFigures {
  readonly cycles: number;
  /** More open descriptors than before. */
  readonly fds: number;
  /** More of them that hold a network namespace. */
  readonly netns: number;
  /** More of them that hold a BPF program. */
  readonly bpf: number;
  /** Growth of resident memory over the second half, when caches are full and code is compiled. */
  readonly rss_slope_kib_per_1000: number;
}

const PODS = 8;
const SAMPLES = 40;

/** Requests and closes with eight pods at a time. `report` gets the progress. */
export async function soak(stage: Stage, cycles: number, report: (line: string) => void): Promise<SoakFigures> {
  const pods = await stage.pods(PODS);
  const before = stage.node.descriptors;
  const samples: { x: number; y: number }[] = [];
  const rounds = Math.ceil(cycles / PODS);
  const between = Math.max(1, Math.floor(rounds / SAMPLES));
  for (let round = 1; round <= rounds; round += 1) {
    await callAll(pods, "request");
    await callAll(pods, "close");
    if (round % between !== 0 && round !== rounds) continue;
    stage.forgetCalls();
    await stage.node.query<"counts">({ kind: "counts" });
    samples.push({ x: (round * PODS) / 1000, y: stage.node.rssMib * 1024 });
    const { fds } = stage.node.descriptors;
    report(`${round * PODS} cycles: ${fds} descriptors, ${stage.node.rssMib.toFixed(1)} MiB`);
  }
  await new Promise((resolve) => setTimeout(resolve, 1_000));
  const after = stage.node.descriptors;
  return {
    cycles: rounds * PODS,
    fds: after.fds - before.fds,
    netns: after.netns - before.netns,
    bpf: after.bpf - before.bpf,
    rss_slope_kib_per_1000: Math.round(slopeOf(samples.slice(Math.floor(samples.length / 2)))),
  };
}
