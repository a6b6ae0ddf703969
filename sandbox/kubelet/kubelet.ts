import { randomUUID } from "node:crypto";
import { type Clock, KeyedQueue, Latest } from "../../src/async/index.ts";
import { DevicePlugin, type RegisterRequest, Registration } from "../../src/gen/deviceplugin_pb.ts";
import { RpcClient, RpcError, type RpcServer, serveRpc, type Transport, unaryHandler } from "../../src/rpc/index.ts";
import type { Log } from "../../src/telemetry/index.ts";
import { checkpointText, type PodAllocation } from "./kubelet-checkpoint.ts";
import { diskFiles, type KubeletFiles } from "./kubelet-files.ts";
import { type ListedPod, PodResourcesServer } from "./pod-resources.ts";

export type { PodAllocation } from "./kubelet-checkpoint.ts";

export interface KubeletOptions {
  /** The device plugin folder; made when it is missing. */
  readonly folder: string;
  /** The folder of the pod resources socket, where that is wanted. */
  readonly podResourcesFolder?: string;
  /** How calls travel; sockets by default. */
  readonly transport?: Transport | undefined;
  /** Of its folders; the machine's by default. */
  readonly files?: KubeletFiles | undefined;
  /** UIDs of pods; random ones by default. */
  readonly newId?: (() => string) | undefined;
  readonly log: Log;
  readonly clock: Clock;
}

/** A device as a plugin has reported it. */
export interface KubeletDevice {
  readonly id: string;
  readonly healthy: boolean;
  readonly numaNode: number | undefined;
}

export interface AllocateOptions {
  readonly pod: string;
  readonly container?: string;
  /** A plain init container: List does not name it, though its devices are the pod's until the pod ends. */
  readonly isInit?: boolean;
  readonly resource: string;
  /** How many devices; one by default. */
  readonly count?: number;
  /** The plugin has answered, and kubelet writes nothing down before this resolves. */
  readonly writeAfter?: Promise<void>;
}

const CHECKPOINT = "kubelet_internal_checkpoint";
/** What kubelet's gRPC client takes for one message, unless a plugin is to be dropped. */
const MESSAGE_LIMIT_BYTES = 4 * 1024 * 1024;
/** A node is never without pods: the one that every List names, whatever other pods are there. */
const OWN_POD: ListedPod = { namespace: "nsm-system", name: "forwarder-sriov", containers: [] };

/**
 * The device manager of a kubelet: removes every socket of the folder when it starts, dials a plugin back while that waits
 * in Register, follows its list, and gives devices to pods. Its allocations outlive a restart, as the checkpoint does.
 */
export class Kubelet {
  /** Devices by resource, as they are known now. */
  readonly devices = new Latest<ReadonlyMap<string, readonly KubeletDevice[]>>(new Map());
  /** How many registrations were accepted since the first start. */
  registrations = 0;
  /** Its pod resources API. */
  readonly podResources: PodResourcesServer;
  readonly #options: KubeletOptions;
  readonly #files: KubeletFiles;
  readonly #endpoints = new Map<string, { readonly target: string }>();
  #allocations: readonly PodAllocation[] = [];
  /** Pods are admitted one after the other. */
  readonly #choices = new KeyedQueue<string>();
  /** Chosen for a pod whose plugin has not answered yet. */
  readonly #chosen = new Set<string>();
  /** UIDs by name. */
  readonly #pods = new Map<string, string>();
  #running: { readonly server: RpcServer; readonly client: RpcClient } | undefined;

  constructor(options: KubeletOptions) {
    this.#options = options;
    const { folder, podResourcesFolder = `${folder}/../pod-resources`, transport, files, log, clock } = options;
    this.#files = files ?? diskFiles;
    this.podResources = new PodResourcesServer({
      folder: podResourcesFolder,
      transport,
      files: this.#files,
      log,
      clock,
      pods: () => this.#listed(),
      allocatable: () =>
        [...(this.devices.value ?? [])].map(([resourceName, devices]) => ({
          resourceName,
          deviceIds: devices.filter(({ healthy }) => healthy).map(({ id }) => id),
        })),
    });
  }

  async start(): Promise<void> {
    const { folder, transport, log, clock } = this.#options;
    this.#files.prepare(
      folder,
      this.#files.list(folder).filter((name) => name !== CHECKPOINT),
    );
    const limits = { maxMessageBytes: MESSAGE_LIMIT_BYTES };
    const answerLimit = () => ({ bytes: MESSAGE_LIMIT_BYTES, elements: 1_000_000 });
    const client = new RpcClient({ transport, log, clock, dialTimeoutMs: 60_000, idleMs: 60_000, limits, answerLimit });
    const handlers = [unaryHandler(Registration.method.register, (request) => this.#register(request, client))];
    const server = await serveRpc({ url: `unix://${folder}/kubelet.sock`, transport, handlers, log, clock });
    this.#running = { server, client };
    if (this.#options.podResourcesFolder !== undefined) await this.podResources.start();
  }

  /** The process ends. What pods hold stays theirs; nothing is known of any device until plugins come again. */
  async stop(): Promise<void> {
    const running = this.#running;
    this.#running = undefined;
    this.#endpoints.clear();
    this.devices.set(new Map());
    await this.podResources.stop();
    await running?.client.close();
    await running?.server.stop(0);
  }

  async restart(): Promise<void> {
    await this.stop();
    await this.start();
  }

  /** The devices of a resource as soon as they are as desired. */
  async until(
    resource: string,
    isWanted: (devices: readonly KubeletDevice[]) => boolean,
    signal?: AbortSignal,
  ): Promise<readonly KubeletDevice[]> {
    let known = this.devices.value ?? new Map();
    for (;;) {
      const devices = known.get(resource);
      if (devices !== undefined && isWanted(devices)) return devices;
      known = await this.devices.next(signal);
    }
  }

  /**
   * Admits a container: picks healthy devices that no pod holds, by the plugin's preference, and asks for them.
   * @throws what kubelet fails the pod with
   */
  async allocate(options: AllocateOptions): Promise<PodAllocation> {
    const { resource, count = 1 } = options;
    const endpoint = this.#endpoints.get(resource);
    const client = this.#running?.client;
    if (endpoint === undefined || client === undefined) {
      throw new Error(`Cannot allocate ${resource}: no plugin offers it`);
    }
    const ids = await this.#choices.run(resource, () => this.#choose(client, endpoint.target, resource, count));
    try {
      return await this.#allocate(options, { ids, client, target: endpoint.target });
    } finally {
      for (const id of ids) this.#chosen.delete(id);
    }
  }

  async #allocate(
    { pod, container = "app", isInit = false, resource, writeAfter }: AllocateOptions,
    { ids, client, target }: { readonly ids: readonly string[]; readonly client: RpcClient; readonly target: string },
  ): Promise<PodAllocation> {
    const containerRequests = [{ devicesIds: [...ids] }];
    const { response } = await client.call(target, DevicePlugin.method.allocate, { containerRequests });
    const envs = response.containerResponses[0]?.envs ?? {};
    await writeAfter;
    if (this.#running?.client !== client) throw new Error(`Cannot allocate ${resource}: kubelet has stopped`);
    const podUid = this.admit(pod);
    const allocation = { pod, podUid, container, isInit, resource, ids, envs };
    this.#allocations = [...this.#allocations, allocation];
    this.#writeCheckpoint();
    return allocation;
  }

  /** A pod is there from now on, with or without devices. Returns its UID. */
  admit(pod: string): string {
    const uid = this.#pods.get(pod) ?? (this.#options.newId ?? randomUUID)();
    this.#pods.set(pod, uid);
    return uid;
  }

  /** Remembers that a pod has devices which no plugin of now gave out. */
  remember(pod: string, resource: string, ids: readonly string[]): void {
    const podUid = this.admit(pod);
    this.#allocations = [
      ...this.#allocations,
      { pod, podUid, container: "app", isInit: false, resource, ids, envs: {} },
    ];
  }

  /**
   * The pod has ended: its devices are free for others. No plugin is notified: the API has no word for it. The checkpoint
   * names it until the next device is given out, or the next list is sent.
   */
  free(pod: string): void {
    this.#pods.delete(pod);
    this.#allocations = this.#allocations.filter((allocation) => allocation.pod !== pod);
  }

  #listed(): readonly ListedPod[] {
    const pods = [...this.#pods.keys()].map((name) => {
      const own = this.#allocations.filter(({ pod, isInit }) => pod === name && !isInit);
      const containers = own.map(({ container, resource, ids }) => ({
        name: container,
        devices: [{ resourceName: resource, deviceIds: [...ids] }],
      }));
      return { namespace: "default", name, containers };
    });
    return [OWN_POD, ...pods];
  }

  #writeCheckpoint(): void {
    this.#files.replace(this.#options.folder, CHECKPOINT, checkpointText(this.#allocations));
  }

  /** Who holds what. */
  get allocations(): readonly PodAllocation[] {
    return this.#allocations;
  }

  async #choose(client: RpcClient, target: string, resource: string, count: number): Promise<readonly string[]> {
    const held = new Set([...this.#chosen, ...this.#allocations.flatMap(({ ids }) => ids)]);
    const devices = this.devices.value?.get(resource) ?? [];
    const available = devices.filter(({ id, healthy }) => healthy && !held.has(id)).map(({ id }) => id);
    if (available.length < count) {
      throw new Error(
        `Cannot allocate ${count} of ${resource}: ${available.length} of ${devices.length} are available`,
      );
    }
    const { response: options } = await client.call(target, DevicePlugin.method.getDevicePluginOptions, {});
    if (!options.getPreferredAllocationAvailable) return this.#take(available.slice(0, count));
    const request = { availableDeviceIDs: available, mustIncludeDeviceIDs: [], allocationSize: count };
    const requested = { containerRequests: [request] };
    const { response } = await client.call(target, DevicePlugin.method.getPreferredAllocation, requested);
    const preferred = (response.containerResponses[0]?.deviceIDs ?? []).filter((id) => available.includes(id));
    return this.#take([...new Set([...preferred, ...available])].slice(0, count));
  }

  #take(ids: readonly string[]): readonly string[] {
    for (const id of ids) this.#chosen.add(id);
    return ids;
  }

  async #register(request: RegisterRequest, client: RpcClient) {
    if (request.version !== "v1beta1") throw new RpcError("UNKNOWN", `version ${request.version} is not supported`);
    if (!/^[a-z0-9.-]+\/[A-Za-z0-9._-]+$/.test(request.resourceName)) {
      throw new RpcError("UNKNOWN", `"${request.resourceName}" is no extended resource name`);
    }
    const target = `unix://${this.#options.folder}/${request.endpoint}`;
    await client.call(target, DevicePlugin.method.getDevicePluginOptions, {}, { timeoutMs: 60_000 });
    const endpoint = { target };
    this.#endpoints.set(request.resourceName, endpoint);
    this.registrations += 1;
    void this.#follow(request.resourceName, endpoint, client);
    return {};
  }

  /** Until the stream ends: then nothing of the resource is healthy any more. */
  async #follow(resource: string, endpoint: { readonly target: string }, client: RpcClient): Promise<void> {
    try {
      for await (const { devices } of client.stream(endpoint.target, DevicePlugin.method.listAndWatch, {})) {
        const devicesListed = devices.map(({ ID, health, topology }) => ({
          id: ID,
          healthy: health === "Healthy",
          numaNode: topology?.nodes[0] === undefined ? undefined : Number(topology.nodes[0].ID),
        }));
        this.#know(resource, devicesListed);
        this.#writeCheckpoint(); // the real one writes it for each list (devicemanager, genericDeviceUpdateCallback)
      }
    } catch (error) {
      this.#options.log.debug("device-list-ended", { resource, problem: (error as Error).message });
    }
    if (this.#endpoints.get(resource) !== endpoint) return; // registered again since, or kubelet has stopped
    this.#endpoints.delete(resource);
    this.#know(
      resource,
      (this.devices.value?.get(resource) ?? []).map((device) => ({ ...device, healthy: false })),
    );
  }

  #know(resource: string, devices: readonly KubeletDevice[]): void {
    this.devices.set(new Map([...(this.devices.value ?? []), [resource, devices]]));
  }
}
