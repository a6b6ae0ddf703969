// When kubelet is queried, and what follows from what it says over time: without sockets, and in no time.
import assert from "node:assert/strict";
import { test } from "node:test";
import { create, type DescMethod } from "@bufbuild/protobuf";
import { until } from "../../test/scenes/until.ts";
import { HandClock, settled } from "../nsm/testing/fakes.ts";
import { RpcError } from "../rpc/index.ts";
import { Health } from "../telemetry/index.ts";
import { recordingLog } from "../telemetry/recording-log.ts";
import type { AllocatableDevices } from "./foreign-devices.ts";
import { PodResources, type PodResourcesOptions, type PodResourcesState } from "./pod-resources.ts";

const NEW = "v1.PodResourcesLister/List";
const OLD = "v1alpha1.PodResourcesLister/List";
const ALLOCATABLE = "v1.PodResourcesLister/GetAllocatableResources";
const web = { namespace: "default", name: "web" };
const answered = () => ({ podResources: [web] });
const failing = (code: "UNIMPLEMENTED" | "UNAVAILABLE" | "INTERNAL") => () => {
  throw new RpcError(code, "no");
};

/** A kubelet that answers as the test says, and the questions that it has heard, each with its time in ms since the start. */
function world(intervalMs: number, more: Partial<PodResourcesOptions> = {}, first: Record<string, () => unknown> = {}) {
  const clock = new HandClock();
  const startedMs = clock.now();
  const [log, health] = [recordingLog(), new Health(clock)];
  const answers: Record<string, () => unknown> = {
    [NEW]: answered,
    [OLD]: failing("UNIMPLEMENTED"),
    [ALLOCATABLE]: () => ({}),
    ...first,
  };
  const requested: { path: string; atMs: number; target: string; signal: AbortSignal; timeoutMs: number }[] = [];
  const ends: string[] = [];
  const client = {
    async call(target: string, method: DescMethod, _request: unknown, options: object) {
      const path = `${method.parent.typeName}/${method.name}`;
      requested.push({ path, atMs: clock.now() - startedMs, target, ...options } as (typeof requested)[number]);
      return { response: create(method.output, (await answers[path]?.()) as Record<string, unknown>) };
    },
    async close() {
      ends.push("client closed");
    },
  } as unknown as NonNullable<PodResourcesOptions["client"]>;
  const resources = new PodResources({ folder: "/pods//", intervalMs, clock, log, health, client, ...more });
  const states: PodResourcesState["kind"][] = [];
  resources.state.onChange(({ kind }) => void states.push(kind));
  return {
    ...{ clock, log, health, answers, requested, states, ends, resources },
    times: (path = NEW) => requested.filter((one) => one.path === path).map(({ atMs }) => atMs),
    async end() {
      await resources.close();
      assert.equal(clock.timerCount, 0, "timers that outlive the questions");
      assert.deepEqual(ends, ["client closed"]);
    },
  };
}

test("PodResources queries in its interval from one answer to the next, each time with a limit and until it is closed", async () => {
  const { clock, requested, times, end } = world(30_000, { onAllocatable() {} });
  await clock.pass(95_000);
  assert.deepEqual([times(), times(ALLOCATABLE)], Array(2).fill([0, 30_000, 60_000, 90_000]));
  for (const { target, timeoutMs } of requested)
    assert.deepEqual([target, timeoutMs], ["unix:///pods/kubelet.sock", 10_000]);
  await end();
  assert.ok(requested[0]?.signal.aborted);
});

test("PodResources.querySoon() leads to one query in a second, and none that is requested during a query is lost", async () => {
  const { clock, times, answers, resources, end } = world(30_000);
  await clock.pass(10_000);
  for (let pod = 0; pod < 3; pod += 1) resources.querySoon();
  await clock.pass(500);
  resources.querySoon(); // will be in the same answer, and that may come too early for it
  const slow = Promise.withResolvers<object>();
  answers[NEW] = () => slow.promise;
  await clock.pass(500);
  assert.deepEqual(times(), [0, 11_000]);
  slow.resolve(answered());
  answers[NEW] = answered;
  await clock.pass(1_000);
  assert.deepEqual(times(), [0, 11_000, 12_000]);
  await clock.pass(29_900);
  assert.equal(times().length, 3, "it was all that was wanted");
  await end();
});

for (const [intervalMs, desiredMs] of [
  [0, 100],
  [10, 100],
  [600, 600],
] as const) {
  test(`PodResources that is to query each ${intervalMs} ms queries each ${desiredMs} ms, in bad times too`, async () => {
    const { clock, times, answers, end } = world(intervalMs);
    await clock.pass(desiredMs);
    assert.deepEqual(times(), [0, desiredMs]);
    answers[NEW] = failing("UNAVAILABLE");
    await clock.pass(desiredMs);
    const before = times().length;
    await clock.pass(10 * desiredMs);
    const gaps = times()
      .slice(before - 1)
      .map((atMs, at, all) => atMs - (all[at - 1] ?? atMs - desiredMs));
    assert.ok(
      gaps.every((gap) => gap >= Math.max(100, desiredMs / 2) && gap <= desiredMs),
      gaps.join(),
    );
    await end();
  });
}

test("PodResources tries soon after a failure, ever more seldom, and soon again after the next failure", async () => {
  const { clock, times, answers, resources, end } = world(30_000, {}, { [NEW]: failing("UNAVAILABLE") });
  await clock.pass(120_000);
  const gaps = times().map((atMs, at, all) => atMs - (all[at - 1] ?? 0));
  assert.ok((gaps[1] ?? 0) <= 1_000, gaps.join());
  assert.ok((gaps.at(-1) ?? 0) >= 15_000, gaps.join());
  answers[NEW] = answered;
  await clock.pass(40_000);
  answers[NEW] = failing("UNAVAILABLE");
  const turn = () => clock.pass(100);
  await until("the failure is noticed", () => resources.state.value?.kind !== "known", { turn });
  const before = times().length;
  await clock.pass(1_000);
  assert.ok(times().length > before, "a second at most after the first failure");
  await end();
});

test("PodResources queries an old kubelet in the old way until that fails, then in the new way again", async () => {
  const { clock, times, answers, requested, end } = world(30_000, { onAllocatable: () => {} });
  answers[NEW] = failing("UNIMPLEMENTED");
  answers[OLD] = answered;
  await clock.pass(31_000);
  await clock.pass(120_000);
  assert.equal(requested.at(-1)?.path, OLD);
  const [news, allocatable] = [times().length, times(ALLOCATABLE).length];
  await clock.pass(60_000);
  assert.deepEqual([times().length, times(ALLOCATABLE).length], [news, allocatable], "an old one is known to be so");
  answers[OLD] = failing("UNAVAILABLE");
  answers[NEW] = answered;
  await clock.pass(60_000);
  assert.equal(times().length > news, true);
  await end();
});

test("PodResources takes a kubelet whose new API fails for one that is unwell, not for an old one", async () => {
  const { clock, times, states, end } = world(30_000, {}, { [NEW]: failing("INTERNAL"), [OLD]: answered });
  await clock.pass(40_000);
  assert.deepEqual([times(OLD), new Set(states)], [[], new Set(["unknown"])]);
  await end();
});

test("PodResources says what kubelet would give to pods before it sets the state, of all its answers together", async () => {
  const reported: (AllocatableDevices | string)[] = [];
  const { clock, answers, resources, times, end } = world(30_000, {
    onAllocatable: (devices) => reported.push(devices),
  });
  resources.state.onChange(({ kind }) => reported.push(kind));
  const [a, b, c] = ["a", "b", "c"].map((id) => ({ resourceName: id === "c" ? "d/y" : "d/x", deviceIds: [id] }));
  answers[ALLOCATABLE] = () => ({ devices: [a, c, b] });
  await settled();
  const devices = new Map([
    ["d/x", new Set(["a", "b"])],
    ["d/y", new Set(["c"])],
  ]);
  assert.deepEqual(reported, [devices, "known"]);
  answers[ALLOCATABLE] = failing("UNIMPLEMENTED");
  await clock.pass(30_000);
  assert.deepEqual(reported.slice(2), [undefined, "known"]);
  answers[NEW] = failing("UNAVAILABLE");
  const before = times(ALLOCATABLE).length;
  await clock.pass(30_000);
  assert.deepEqual(reported.slice(4, 6), [undefined, "unknown"]);
  assert.equal(times(ALLOCATABLE).length, before, "who does not know its pods is not asked");
  await end();
});

test("PodResources takes a list of pods without devices for an answer, one without pods for none", async () => {
  const { clock, answers, health, resources, end } = world(30_000);
  await settled();
  assert.deepEqual(resources.state.value, {
    kind: "known",
    holdings: { pods: new Set(["default/web"]), devices: new Map() },
  });
  answers[NEW] = () => ({});
  await clock.pass(30_000);
  assert.equal(resources.state.value?.kind, "unknown");
  assert.equal(health.conditions().length, 1);
  await end();
});

test("PodResources.close() ends a question that is under way, waits for it, and says nothing of it", async () => {
  const { answers, requested, states, ends, resources, clock } = world(30_000);
  const begun = Promise.withResolvers<void>();
  const left = Promise.withResolvers<void>();
  answers[NEW] = async () => {
    begun.resolve();
    await new Promise((resolve) => requested[0]?.signal.addEventListener("abort", resolve, { once: true }));
    await left.promise;
    throw new RpcError("CANCELLED", "closed");
  };
  await clock.pass(30_000);
  await begun.promise;
  const before = states.length;
  const closing = resources.close();
  await settled();
  assert.deepEqual(ends, [], "not before the question has ended");
  left.resolve();
  await closing;
  assert.deepEqual([states.length, ends], [before, ["client closed"]]);
});
