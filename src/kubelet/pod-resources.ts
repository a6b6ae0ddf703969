import { type Clock, createBackoff, Latest, type Random } from "../async/index.ts";
import { PodResourcesLister } from "../gen/podresources_v1_pb.ts";
import { PodResourcesLister as OldLister } from "../gen/podresources_v1alpha1_pb.ts";
import { type MessageLimit, RpcClient, RpcError, type Transport } from "../rpc/index.ts";
import type { Health, Log } from "../telemetry/index.ts";
import type { AllocatableDevices } from "./foreign-devices.ts";
import { Wakeup } from "./wakeup.ts";

/** The container that has a device. */
interface DeviceHolder {
  readonly resource: string;
  /** "namespace/name" */
  readonly pod: string;
  readonly container: string;
}

/** What the pods of the node have. */
export interface PodHoldings {
  /** "namespace/name" of every pod, also of those without devices. */
  readonly pods: ReadonlySet<string>;
  /** By device id. */
  readonly devices: ReadonlyMap<string, DeviceHolder>;
}

/** Kubelet's last word, or why there is none. */
export type PodResourcesState =
  | { readonly kind: "known"; readonly holdings: PodHoldings }
  | { readonly kind: "unknown"; readonly problem: string };

export interface PodResourcesOptions {
  /** NSM_POD_RESOURCES_PATH */
  readonly folder: string;
  /** From one answer to the next question. */
  readonly intervalMs: number;
  readonly clock: Clock;
  readonly log: Log;
  readonly health: Health;
  /** What calls kubelet; a client of its own by default. It is closed at the end. */
  readonly client?: Pick<RpcClient, "call" | "close">;
  /** See `ClientOptions` of rpc. */
  readonly transport?: Transport | undefined;
  /** Spreads retries. */
  readonly random?: Pick<Random, "fraction"> | undefined;
  /** Called after every query, before the state is set, with the devices that kubelet would give to pods. */
  readonly onAllocatable?: (devices: AllocatableDevices) => void;
}

const DIAL_TIMEOUT_MS = 2000;
/** A node with hundreds of pods answers in some milliseconds; a busy kubelet in some seconds. */
const ANSWER_TIMEOUT_MS = 10_000;
const FIRST_RETRY_MS = 1000;
/** Many pods may get devices at once: one query covers them all. */
const SOON_MS = 1000;
/** Kubelet answers 100 calls a second for all callers together: nothing that is set may make us a burden. */
const LEAST_INTERVAL_MS = 100;

/** Kubelet itself sends at most 16 MB (pkg/kubelet/apis/podresources, maxMsgSize); a pod with ten devices has a few hundred elements. */
const ANSWER_LIMIT: MessageLimit = { bytes: 16 * 1024 * 1024, elements: 262_144 };

/** Queries kubelet, again and again, which pod has which device. */
export class PodResources {
  /** Set after every question; without a value until the first is answered or has failed. */
  readonly state = new Latest<PodResourcesState>();
  readonly #options: PodResourcesOptions;
  readonly #client: Pick<RpcClient, "call" | "close">;
  readonly #bell: Wakeup;
  readonly #stop = new AbortController();
  readonly #unavailable;
  readonly #running: Promise<void>;
  #isOld = false;
  #problem: string | undefined;

  constructor(options: PodResourcesOptions) {
    const { clock, log, health, intervalMs, transport } = options;
    this.#options = options;
    this.#bell = new Wakeup(clock);
    this.#client =
      options.client ??
      new RpcClient({
        transport,
        log,
        clock,
        dialTimeoutMs: DIAL_TIMEOUT_MS,
        idleMs: intervalMs + ANSWER_TIMEOUT_MS,
        limits: { maxMessageBytes: ANSWER_LIMIT.bytes },
        answerLimit: () => ANSWER_LIMIT,
      });
    this.#unavailable = health.condition("pod-resources-unknown");
    this.#running = this.#run(this.#stop.signal);
  }

  /** A pod has got a device: queries soon, so that the pod is known by name even when it lives for a short time. */
  querySoon(): void {
    this.#bell.ring();
  }

  async close(): Promise<void> {
    this.#stop.abort();
    await this.#running;
    await this.#client.close();
  }

  async #run(signal: AbortSignal): Promise<void> {
    const { clock, intervalMs, random } = this.#options;
    const steadyMs = Math.max(intervalMs, LEAST_INTERVAL_MS);
    const firstMs = Math.min(FIRST_RETRY_MS, steadyMs);
    const backoff = createBackoff({ firstMs, limitMs: steadyMs, random: random?.fraction });
    const pause = (ms: number) => clock.sleep(ms, signal).catch(() => {}); // only the stop ends it early
    while (!signal.aborted) {
      const state = await this.#query(signal);
      const allocatable = state.kind === "known" ? await this.#queryAllocatable(signal) : undefined;
      if (signal.aborted) return;
      this.#options.onAllocatable?.(allocatable);
      this.#note(state);
      if (state.kind === "known") {
        backoff.reset();
        const soonMs = Math.min(SOON_MS, steadyMs);
        await this.#bell.wait(steadyMs - soonMs, signal);
        await pause(soonMs);
      } else {
        await pause(Math.max(backoff.nextMs(), LEAST_INTERVAL_MS));
      }
    }
  }

  async #query(signal: AbortSignal): Promise<PodResourcesState> {
    try {
      const holdings = await this.#list(signal);
      // We are a pod of this node ourselves: a kubelet that knows of none has not read them yet.
      if (holdings.pods.size === 0) return { kind: "unknown", problem: "kubelet names no pod at all" };
      return { kind: "known", holdings };
    } catch (error) {
      return { kind: "unknown", problem: error instanceof Error ? error.message : String(error) };
    }
  }

  /** Since 1.23; a kubelet without it, or one that refuses, only keeps us from knowing of other plugins. */
  async #queryAllocatable(signal: AbortSignal): Promise<AllocatableDevices> {
    if (this.#isOld || this.#options.onAllocatable === undefined) return undefined;
    const method = PodResourcesLister.method.getAllocatableResources;
    try {
      const { response } = await this.#client.call(this.#target, method, {}, { signal, timeoutMs: ANSWER_TIMEOUT_MS });
      const devices = new Map<string, Set<string>>();
      for (const { resourceName, deviceIds } of response.devices) {
        devices.set(resourceName, new Set([...(devices.get(resourceName) ?? []), ...deviceIds]));
      }
      return devices;
    } catch (error) {
      this.#options.log.debug("allocatable-devices-unknown", { problem: String(error) });
      return undefined;
    }
  }

  get #target(): string {
    return `unix://${this.#options.folder.replace(/\/+$/, "")}/kubelet.sock`;
  }

  async #list(signal: AbortSignal): Promise<PodHoldings> {
    const target = this.#target;
    const call = { signal, timeoutMs: ANSWER_TIMEOUT_MS };
    if (!this.#isOld) {
      try {
        const { response } = await this.#client.call(target, PodResourcesLister.method.list, {}, call);
        return holdingsOf(response.podResources);
      } catch (error) {
        if (!(error instanceof RpcError) || error.code !== "UNIMPLEMENTED") throw error;
      }
    }
    try {
      const { response } = await this.#client.call(target, OldLister.method.list, {}, call);
      this.#isOld = true;
      return holdingsOf(response.podResources);
    } catch (error) {
      this.#isOld = false; // another kubelet may have come
      throw error;
    }
  }

  #note(state: PodResourcesState): void {
    const { log } = this.#options;
    const problem = state.kind === "unknown" ? state.problem : undefined;
    if (problem !== undefined) {
      const effect = "devices that pods have given back stay reserved until it does";
      this.#unavailable.raise(`Kubelet does not say which pod has which device: ${problem}; ${effect}`);
    } else {
      this.#unavailable.clear();
    }
    if (problem !== undefined && this.#problem === undefined) log.warn("pod-resources-unknown", { problem });
    if (problem === undefined && this.#problem !== undefined) log.info("pod-resources-known", {});
    this.#problem = problem;
    this.state.set(state);
  }
}

/** What both versions of the API have in common. */
interface ListedPod {
  readonly name: string;
  readonly namespace: string;
  readonly containers: readonly {
    readonly name: string;
    readonly devices: readonly { readonly resourceName: string; readonly deviceIds: readonly string[] }[];
  }[];
}

function holdingsOf(listed: readonly ListedPod[]): PodHoldings {
  const devices = new Map<string, DeviceHolder>();
  const pods = new Set<string>();
  for (const { namespace, name, containers } of listed) {
    const pod = `${namespace}/${name}`;
    pods.add(pod);
    for (const { name: container, devices: groups } of containers) {
      for (const { resourceName: resource, deviceIds } of groups) {
        for (const id of deviceIds) devices.set(id, { resource, pod, container });
      }
    }
  }
  return { pods, devices };
}
