import type { Clock } from "../../src/async/index.ts";
import { PodResourcesLister } from "../../src/gen/podresources_v1_pb.ts";
import { PodResourcesLister as OldLister } from "../../src/gen/podresources_v1alpha1_pb.ts";
import {
  RpcError,
  type RpcHandler,
  type RpcServer,
  serveRpc,
  type Transport,
  unaryHandler,
} from "../../src/rpc/index.ts";
import type { Log } from "../../src/telemetry/index.ts";
import { diskFiles, type KubeletFiles } from "./kubelet-files.ts";

/** A container with its devices, as kubelet lists it. */
export interface ListedContainer {
  readonly name: string;
  readonly devices: { readonly resourceName: string; readonly deviceIds: string[] }[];
}

export interface ListedPod {
  readonly name: string;
  readonly namespace: string;
  readonly containers: ListedContainer[];
}

/** How the server misbehaves. */
export type PodResourcesMood =
  | "well"
  /** Answers RESOURCE_EXHAUSTED, as when others use up what kubelet allows to all together. */
  | "limited"
  /** Takes a call and does not answer it. */
  | "silent"
  /** Knows of no pod, as right after its start. */
  | "empty"
  /** Fails, as a kubelet does whose runtime does not answer. */
  | "failing";

export interface PodResourcesServerOptions {
  /** Made when it is missing. */
  readonly folder: string;
  /** How calls travel; sockets by default. */
  readonly transport?: Transport | undefined;
  /** The machine's by default. */
  readonly files?: KubeletFiles | undefined;
  readonly log: Log;
  readonly clock: Clock;
  pods(): readonly ListedPod[];
  /** Healthy devices, by resource. */
  allocatable?(): readonly { readonly resourceName: string; readonly deviceIds: string[] }[];
}

/** Kubelet's own: apis/podresources/constants.go. */
const CALLS_PER_SECOND = 100;
const BURST = 10;

/** Kubelet bounds no answer: its own client reads 16 MiB. */
const KUBELETS = { answerBytes: { each: 2 ** 25, others: 2 ** 25, manager: 2 ** 25 } };

/** The pod resources API of a kubelet, with its limit on calls, which all callers share. */
export class PodResourcesServer {
  mood: PodResourcesMood = "well";
  /** Which versions it has. */
  versions: readonly ("v1" | "v1alpha1")[] = ["v1", "v1alpha1"];
  /** What it says of pods, instead of the truth. */
  alter: (pods: readonly ListedPod[]) => readonly ListedPod[] = (pods) => pods;
  /** Calls of List that came, the refused ones too. */
  calls = 0;
  readonly #options: PodResourcesServerOptions;
  #running: { readonly server: RpcServer; readonly stop: AbortController } | undefined;
  #tokens = BURST;
  #countedMs = 0;

  constructor(options: PodResourcesServerOptions) {
    this.#options = options;
  }

  async start(): Promise<void> {
    const { folder, transport, files = diskFiles, log, clock } = this.#options;
    files.prepare(folder, ["kubelet.sock"]);
    const stop = new AbortController();
    const list = async () => ({ podResources: [...(await this.#list(stop.signal))] });
    const known: readonly (readonly ["v1" | "v1alpha1", RpcHandler])[] = [
      ["v1", unaryHandler(PodResourcesLister.method.list, list)],
      [
        "v1",
        unaryHandler(PodResourcesLister.method.getAllocatableResources, async () => ({
          devices: [...(this.#options.allocatable?.() ?? [])],
        })),
      ],
      ["v1alpha1", unaryHandler(OldLister.method.list, list)],
    ];
    const handlers = known.filter(([version]) => this.versions.includes(version)).map(([, handler]) => handler);
    const url = `unix://${folder}/kubelet.sock`;
    this.#running = { server: await serveRpc({ url, transport, handlers, log, clock, limits: KUBELETS }), stop };
  }

  async stop(): Promise<void> {
    const running = this.#running;
    this.#running = undefined;
    running?.stop.abort(new RpcError("UNAVAILABLE", "kubelet has stopped"));
    await running?.server.stop(0);
  }

  async #list(stopped: AbortSignal): Promise<readonly ListedPod[]> {
    this.calls += 1;
    if (this.mood === "limited" || !this.#isAllowed()) {
      throw new RpcError("RESOURCE_EXHAUSTED", "rejected by rate limit");
    }
    if (this.mood === "failing") throw new RpcError("UNKNOWN", "the runtime does not answer");
    if (this.mood === "silent") await this.#options.clock.sleep(3_600_000, stopped);
    return this.mood === "empty" ? [] : this.alter(this.#options.pods());
  }

  /** A bucket that fills by the time that has passed. */
  #isAllowed(): boolean {
    const nowMs = this.#options.clock.monotonicMs();
    this.#tokens = Math.min(BURST, this.#tokens + ((nowMs - this.#countedMs) * CALLS_PER_SECOND) / 1000);
    this.#countedMs = nowMs;
    if (this.#tokens < 1) return false;
    this.#tokens -= 1;
    return true;
  }
}
