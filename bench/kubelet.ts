// How fast kubelet hears of what it has to know, and what that costs.
import { SANDBOX_RESOURCE } from "../sandbox/sandbox.ts";
import type { Stage } from "./stage.ts";
import { type Distribution, distributionOf } from "./statistics.ts";

/** What was measured between kubelet and the forwarder, in ms. */
export interface KubeletFigures {
  /** From the start of kubelet, which makes its socket, until it has every resource with every device. */
  readonly restart: Distribution;
  /** From the fault of a physical function until kubelet knows that its VFs are unhealthy. */
  readonly fault: Distribution;
  /** One device for one pod. */
  readonly allocate: Distribution;
  /** CPU time of the forwarder for one device for one pod, with all lists that follow from it, beyond what it takes at rest. */
  readonly allocateCpuMs: number;
  /** Lists that kubelet got for it. */
  readonly listsPerAllocate: number;
}

/** After this the forwarder has reported to kubelet everything that follows from the last device. */
const REST_MS = 500;
/** Long enough to hold what the forwarder looks at every few seconds. */
const AT_REST_MS = 5_000;

/** Leaves the devices of `count` pods allocated. */
export async function kubeletFigures(stage: Stage, count: number): Promise<KubeletFigures> {
  const restart = await restarts(stage, count);
  const fault = await faults(stage, count);
  return { restart, fault, ...(await allocations(stage, count)) };
}

async function restarts({ kubelet, vfs }: Stage, count: number): Promise<Distribution> {
  const names = [...(kubelet.devices.value?.keys() ?? [])];
  const samples: number[] = [];
  for (let done = 0; done < count; done += 1) {
    await kubelet.stop();
    const startedAt = performance.now();
    const listed = names.map((name) => kubelet.until(name, (devices) => devices.length === vfs));
    await kubelet.start();
    await Promise.all(listed);
    samples.push(performance.now() - startedAt);
  }
  return distributionOf(samples);
}

async function faults({ kubelet, node }: Stage, count: number): Promise<Distribution> {
  const samples: number[] = [];
  const healthy = () => (kubelet.devices.value?.get(SANDBOX_RESOURCE) ?? []).filter((one) => one.healthy).length;
  const all = healthy();
  for (let done = 0; done < count; done += 1) {
    const reported = kubelet
      .until(SANDBOX_RESOURCE, (devices) => devices.some((one) => !one.healthy))
      .then(() => Number(process.hrtime.bigint()) / 1e6);
    const atMs = await node.query<"fault">({ kind: "fault", isOver: false });
    samples.push((await reported) - atMs);
    await node.query<"fault">({ kind: "fault", isOver: true });
    await kubelet.until(SANDBOX_RESOURCE, (devices) => devices.filter((one) => one.healthy).length === all);
  }
  return distributionOf(samples);
}

async function allocations(
  { kubelet, node }: Stage,
  count: number,
): Promise<Pick<KubeletFigures, "allocate" | "allocateCpuMs" | "listsPerAllocate">> {
  const restCpuPerMs = (await cpuOf(node, () => pause(AT_REST_MS))).cpuPerMs;
  const samples: number[] = [];
  let lists = 0;
  const stop = kubelet.devices.onChange(() => {
    lists += 1;
  });
  const { cpuMs, tookMs } = await cpuOf(node, async () => {
    for (let done = 0; done < count; done += 1) {
      const startedAt = performance.now();
      await kubelet.allocate({ pod: `allocated-${done}`, resource: SANDBOX_RESOURCE });
      samples.push(performance.now() - startedAt);
    }
    await pause(REST_MS);
  });
  stop();
  const allocateCpuMs = Math.max(0, cpuMs - restCpuPerMs * tookMs) / count;
  return { allocate: distributionOf(samples), allocateCpuMs, listsPerAllocate: lists / count };
}

async function cpuOf(node: Stage["node"], work: () => Promise<void>) {
  const [cpuBeforeMs, startedAt] = [node.cpuMs, performance.now()];
  await work();
  const [cpuMs, tookMs] = [node.cpuMs - cpuBeforeMs, performance.now() - startedAt];
  return { cpuMs, tookMs, cpuPerMs: cpuMs / tookMs };
}

const pause = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));
