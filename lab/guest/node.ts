import { randomUUID } from "node:crypto";
import { rmSync, writeFileSync } from "node:fs";
import type { KubeletDevice } from "../../sandbox/kubelet/kubelet.ts";
import type { Client, ClientOptions } from "../../sandbox/nsm/client.ts";
import type { DesiredContext } from "../../sandbox/nsm/endpoint-context.ts";
import { sharedCalls } from "../../sandbox/nsm/shared-calls.ts";
import { Pod } from "../../sandbox/pod/pod.ts";
import { Sandbox, type SandboxPod } from "../../sandbox/sandbox.ts";
import { ForwarderProcess } from "./forwarder-process.ts";
import { adapters, operate, restoreAdapter, untilVfsAreRestored, VFS_PER_ADAPTER } from "./hardware.ts";
import type { Stopwatch } from "./telling.ts";
import { eventually } from "./waiting.ts";

const CONFIG = "/tmp/pci.config";
const ADMIN_PORT = 9871;
/** Everything is emulated, and the machine may have other guests. */
const CALL_TIMEOUT_MS = 120_000;

/** A resource for each adapter, so that a story can choose. */
export const resources = { left: "worker.domain/left", right: "worker.domain/right" } as const;
export type Side = keyof typeof resources;

export interface LabNodeOptions {
  readonly logLevel: "INFO" | "DEBUG";
  /** Where the forwarder keeps what outlives it; in memory by default. */
  readonly statePath?: string;
  /** Pods that were on this node before it was booted, as kubelet knows them. */
  readonly earlierPods?: readonly EarlierPod[];
}

/** A pod that was there before the node was booted, with what it was given. */
export interface EarlierPod {
  readonly name: string;
  readonly side: Side;
  readonly tokenId: string;
}

interface LabNodeParts {
  readonly contexts: Map<string, DesiredContext>;
  readonly logLevel: string;
}

/** The guest as a node of a cluster: real adapters, the forwarder as it is shipped, pretend peers on real sockets. */
export class LabNode {
  readonly sandbox: Sandbox;
  readonly stopwatch: Stopwatch;
  /** The manager's calls, on one connection; for `directClient`. */
  readonly managerCalls: ReturnType<typeof sharedCalls>;
  #forwarder: ForwarderProcess | undefined;
  #podCount = 0;
  /** No name comes twice, whatever was there before the node was booted. */
  readonly #podPrefix = `pod-${randomUUID().slice(0, 4)}-`;
  #pods: readonly SandboxPod[] = [];
  #clients: readonly { readonly pod: SandboxPod; readonly client: Client }[] = [];
  /** What the endpoint wants of a pod's connection, by the pod's name. */
  readonly #contexts: Map<string, DesiredContext>;
  readonly #logLevel: string;

  private constructor(sandbox: Sandbox, parts: Pick<LabNode, "stopwatch"> & LabNodeParts) {
    this.sandbox = sandbox;
    this.stopwatch = parts.stopwatch;
    this.managerCalls = sharedCalls(sandbox.actor("nsmgr"));
    this.#contexts = parts.contexts;
    this.#logLevel = parts.logLevel;
  }

  static async open(stopwatch: Stopwatch, options: LabNodeOptions): Promise<LabNode> {
    const { logLevel, statePath, earlierPods = [] } = options;
    writeFileSync(CONFIG, configText());
    const contexts = new Map<string, DesiredContext>();
    const sandbox = await Sandbox.start({
      machine: { pfs: 0 },
      endpoint: {
        prefixes: ["172.16.1.0/24", "2001:db8::/120"],
        context: ({ path }) => contexts.get(path?.pathSegments[0]?.name ?? "") ?? {},
      },
      callTimeoutMs: CALL_TIMEOUT_MS,
      // Polled often: a pod that has died is noticed after two intervals.
      settings: {
        dialTimeoutMs: 30_000,
        resourcePollTimeoutMs: 2_000,
        adminListenOn: { host: "127.0.0.1", port: ADMIN_PORT },
        ...(statePath !== undefined && { statePath }),
      },
    });
    for (const { name, side, tokenId } of earlierPods) sandbox.kubelet.remember(name, resources[side], [tokenId]);
    const node = new LabNode(sandbox, { contexts, stopwatch, logLevel });
    await node.startForwarder();
    return node;
  }

  get forwarder(): ForwarderProcess {
    if (!this.#forwarder) throw new Error("The forwarder does not run");
    return this.#forwarder;
  }

  /** Starts it and waits until it serves and kubelet knows every VF. */
  async startForwarder(): Promise<void> {
    const startedAt = performance.now();
    this.#forwarder = new ForwarderProcess(this.#environment());
    await this.forwarder.line("started", ({ event }) => event === "started");
    this.stopwatch.add("start", performance.now() - startedAt);
    await this.untilHealthy();
  }

  /** As the kernel ends a process, with no word. */
  async killForwarder(): Promise<void> {
    await this.forwarder.end("SIGKILL");
  }

  /** Another process as busy as a forwarder that starts: one whose configuration names a file that is not there. */
  async startAnotherProgram(): Promise<void> {
    const other = new ForwarderProcess({ ...this.#environment(), NSM_SRIOV_CONFIG_FILE: "/nonexistent" });
    await other.ended;
  }

  /** Kubelet has heard of each VF of the side that it is well. */
  async untilHealthy(...sides: readonly Side[]): Promise<void> {
    const desired = sides.length > 0 ? sides : (["left", "right"] as const);
    const isWell = (devices: readonly KubeletDevice[]) =>
      devices.length === VFS_PER_ADAPTER && devices.every(({ healthy }) => healthy);
    for (const side of desired) await eventually(() => this.devices(side), isWell);
  }

  /** What kubelet knows of an adapter's VFs. */
  devices(side: Side): readonly KubeletDevice[] {
    return this.sandbox.kubelet.devices.value?.get(resources[side]) ?? [];
  }

  /** A new pod with a token; its connection will be as `desired`. */
  async pod(side: Side, desired: DesiredContext = {}): Promise<SandboxPod> {
    this.#podCount += 1;
    const name = `${this.#podPrefix}${this.#podCount}`;
    this.#contexts.set(name, desired);
    const pod = await this.sandbox.startPod(name, resources[side]);
    this.#pods = [...this.#pods, pod];
    return pod;
  }

  /** A pod that was there before the node was booted, in a new namespace and with a new client: what a runtime makes of it. */
  podAgain({ name, tokenId }: EarlierPod, desired: DesiredContext): SandboxPod {
    this.#contexts.set(name, desired);
    const allocation = this.sandbox.kubelet.allocations.find(({ pod }) => pod === name);
    if (!allocation) throw new Error(`Kubelet does not know ${name}`);
    const pod = new Pod(name);
    const again = { name, allocation, tokenId, pod, client: this.sandbox.clientOf({ name, pod, tokenId }) };
    this.#pods = [...this.#pods, again];
    return again;
  }

  /** Another client of the pod, that asks for something else. */
  client(pod: SandboxPod, changes: Partial<ClientOptions> = {}): Client {
    const client = this.sandbox.clientOf(pod, changes);
    this.#clients = [...this.#clients, { pod, client }];
    return client;
  }

  /** The pod's client as one that plays the manager too. */
  directClient({ name, pod, tokenId }: SandboxPod, changes: Partial<ClientOptions> = {}): Client {
    const { sandbox } = this;
    return sandbox.directClient(name, {
      actor: sandbox.actor(`ns/default/pod/${name}`),
      manager: { name: sandbox.nsmgr.name, actor: sandbox.actor("nsmgr") },
      netns: pod.netns,
      parameters: { name: "nsm-1", tokenID: tokenId },
      ...changes,
    });
  }

  /** What the endpoint asks for in a pod's next Request. */
  want({ name }: SandboxPod, desired: DesiredContext): void {
    this.#contexts.set(name, desired);
  }

  /** Closes the connections and ends the pods. */
  async endPods(...pods: readonly SandboxPod[]): Promise<void> {
    for (const pod of pods) {
      if (pod.client.connection) await pod.client.close();
      await this.dropPod(pod);
    }
    await this.cleaned();
  }

  /** Each VF that a client has left has its new network device. */
  async cleaned(): Promise<void> {
    await eventually(
      () => this.status(),
      (status) => !JSON.stringify(status).includes('"being-cleaned"'),
    );
  }

  /** A pod dies: its process and its namespace are gone, kubelet knows it, and there was no Close. */
  async dropPod(dead: SandboxPod): Promise<void> {
    this.#pods = this.#pods.filter((pod) => pod !== dead);
    for (const { pod, client } of this.#clients) if (pod === dead) await client.hangUp();
    this.#clients = this.#clients.filter(({ pod }) => pod !== dead);
    await dead.client.hangUp();
    dead.pod.close();
    this.sandbox.kubelet.free(dead.name);
  }

  /** Ends what a story that failed has left. */
  async endLeftPods(): Promise<void> {
    for (const pod of this.#pods) await this.endPods(pod).catch(() => this.dropPod(pod));
  }

  /**
   * After a story that failed: adapters with all their VFs, and a forwarder that serves them. Pods of the scenario are left alone;
   * where there is none, no VF may have anything of one: the forwarder restores them, or all is made from the beginning.
   */
  async putRight(): Promise<void> {
    for (const adapter of Object.values(adapters)) await restoreAdapter(adapter);
    if (this.forwarder.hasEnded) await this.startForwarder();
    else await this.untilHealthy();
    if (this.#pods.length > 0) return;
    await untilVfsAreRestored().catch(() => this.#beginAgain());
  }

  /** As a node that was just booted: new VFs, and a forwarder that knows of none. */
  async #beginAgain(): Promise<void> {
    if (!this.forwarder.hasEnded) await this.killForwarder();
    rmSync(this.statePath, { recursive: true });
    for (const adapter of Object.values(adapters)) {
      operate(`${adapter}/sriov_numvfs`, "0");
      await restoreAdapter(adapter);
    }
    await this.startForwarder();
    await untilVfsAreRestored();
  }

  /** Where the forwarder keeps its journal. */
  get statePath(): string {
    return this.sandbox.forwarderSettings.statePath;
  }

  /** The status page as JSON. */
  async status(): Promise<unknown> {
    return (await fetch(`http://127.0.0.1:${ADMIN_PORT}/status.json`)).json();
  }

  /** As SIGTERM does. Answers with how the forwarder ended. */
  async stop(): Promise<string> {
    await this.managerCalls.close();
    const how = await this.forwarder.end("SIGTERM");
    await this.sandbox.stop();
    return how;
  }

  /** The sandbox's settings as the environment has them. */
  #environment(): Readonly<Record<string, string>> {
    const settings = this.sandbox.forwarderSettings;
    return {
      NSM_NAME: settings.name,
      NSM_NS_NAME: settings.networkServices.join(","),
      NSM_CONNECT_TO: settings.connectTo,
      NSM_DIAL_TIMEOUT: `${settings.dialTimeoutMs}ms`,
      NSM_MAX_TOKEN_LIFETIME: `${settings.maxTokenLifetimeMs}ms`,
      NSM_RESOURCE_POLL_TIMEOUT: `${settings.resourcePollTimeoutMs}ms`,
      NSM_DEVICE_PLUGIN_PATH: settings.devicePluginPath,
      NSM_POD_RESOURCES_PATH: settings.podResourcesPath,
      NSM_SRIOV_CONFIG_FILE: CONFIG,
      NSM_CGROUP_PATH: "/sys/fs/cgroup/devices",
      NSM_VFIO_PATH: "/dev/vfio",
      NSM_LOG_LEVEL: this.#logLevel,
      NSM_ADMIN_LISTEN_ON: `localhost:${ADMIN_PORT}`,
      NSM_STATE_PATH: settings.statePath,
      SPIFFE_ENDPOINT_SOCKET: settings.spiffeEndpointSocket,
    };
  }
}

function configText(): string {
  const entry = (side: Side) =>
    [
      `  ${adapters[side]}:`,
      "    pfKernelDriver: igb",
      "    vfKernelDriver: igbvf",
      `    capabilities: [${side}]`,
      "    serviceDomains: [worker.domain]",
    ].join("\n");
  return `physicalFunctions:\n${entry("left")}\n${entry("right")}\n`;
}
