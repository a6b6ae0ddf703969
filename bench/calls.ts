import type { BenchPod } from "./stage.ts";

/** What a pod asks for. */
export type CallKind = "request" | "close";

/** One call of each pod, all at the same time. How long each took for its caller, in ms, and all of them together. */
export async function callAll(
  pods: readonly BenchPod[],
  kind: CallKind,
): Promise<{ readonly eachMs: readonly number[]; readonly totalMs: number }> {
  const startedAt = performance.now();
  const eachMs = await Promise.all(pods.map((pod) => callOne(pod, kind)));
  return { eachMs, totalMs: performance.now() - startedAt };
}

/** The same for many pods, a few at a time: to get somewhere, not to measure. */
export async function callInGroups(pods: readonly BenchPod[], kind: CallKind, groupSize: number): Promise<void> {
  for (let at = 0; at < pods.length; at += groupSize) await callAll(pods.slice(at, at + groupSize), kind);
}

/** One call; how long it took for its caller, in ms. */
export async function callOne({ client }: BenchPod, kind: CallKind): Promise<number> {
  const startedAt = performance.now();
  await (kind === "close" ? client.close() : client.request());
  return performance.now() - startedAt;
}
