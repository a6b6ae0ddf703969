// Plays the targets in a thread that can be ended: a parser that hangs holds up nothing but this.
import { parentPort, workerData } from "node:worker_threads";
import { play } from "./engine.ts";
import { measureGrowth } from "./growth.ts";
import { type Assignment, Slate } from "./slate.ts";
import { loadTargets } from "./targets/all.ts";

const { names, seed, msEach, executions, slate: memory } = workerData as Assignment;
const slate = new Slate(memory);
/** Of a target's time; the rest is for measuring how its time grows. */
const PLAYING = 0.8;

for (const target of (await loadTargets()).filter(({ name }) => names.includes(name))) {
  parentPort?.postMessage({ kind: "begins", name: target.name });
  const startedAt = performance.now();
  const isOver = (share: number) => () => performance.now() - startedAt > msEach * share;
  const isEnough = executions === undefined ? isOver(PLAYING) : (count: number) => count >= executions;
  const played = await play(target, seed, isEnough, (count, at, input) => slate.write(count, at, input));
  const isTimed = played.problem === undefined && executions === undefined;
  let probes = 0;
  const isMeasured = () => {
    slate.write(--probes, seed - probes - 1, Buffer.alloc(0));
    return isOver(1)();
  };
  const growth = isTimed ? await measureGrowth(target, seed, isMeasured) : [];
  await target.close?.();
  parentPort?.postMessage({ kind: "ended", name: target.name, played, growth, ms: performance.now() - startedAt });
}
parentPort?.postMessage({ kind: "done" });
