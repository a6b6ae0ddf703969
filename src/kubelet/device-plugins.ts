import { type Clock, Latest, type Random } from "../async/index.ts";
import type { Offer } from "../inventory/index.ts";
import type { WatchedFolder } from "../kernel/index.ts";
import { RpcClient, type Transport } from "../rpc/index.ts";
import type { Health, Log } from "../telemetry/index.ts";
import type { ForeignDevices } from "./foreign-devices.ts";
import { resourceNameProblem } from "./resource-name.ts";
import { ResourceRegistration } from "./resource-registration.ts";

interface DevicePluginsOptions {
  readonly offer: Offer;
  /** NSM_DEVICE_PLUGIN_PATH, watched. */
  readonly folder: Omit<WatchedFolder, "close">;
  readonly clock: Clock;
  readonly log: Log;
  readonly health: Health;
  /** Spreads retries. */
  readonly random?: Pick<Random, "fraction"> | undefined;
  /** What kubelet has of other plugins under our resources; unknown by default. */
  readonly foreign?: Pick<ForeignDevices, "streak">;
  /** Kubelet is to be queried again for the devices that it has. */
  querySoon?(): void;
  /** How calls travel; sockets in the folder by default. */
  readonly transport?: Transport | undefined;
}

const DIAL_TIMEOUT_MS = 2000;
const IDLE_MS = 10_000;

/** Offers every resource to kubelet, also those that come later. */
export class DevicePlugins {
  /** Names of the resources whose list kubelet follows at the moment, sorted. */
  readonly registered = new Latest<readonly string[]>([]);
  readonly #options: DevicePluginsOptions;
  readonly #client: RpcClient;
  readonly #unregistered;
  readonly #badName;
  readonly #elsewhere;
  readonly #plugins = new Map<string, ResourceRegistration | undefined>();
  readonly #unsubscribe: () => void;

  constructor(options: DevicePluginsOptions) {
    const { clock, log, health, offer, transport } = options;
    this.#options = options;
    this.#client = new RpcClient({ transport, log, clock, dialTimeoutMs: DIAL_TIMEOUT_MS, idleMs: IDLE_MS });
    this.#unregistered = health.condition("resource-not-registered");
    this.#elsewhere = health.condition("resource-offered-elsewhere");
    this.#badName = health.condition("resource-name-refused");
    this.#unsubscribe = offer.onChange(() => this.#startMissing());
    this.#startMissing();
  }

  /** Resolves when kubelet follows all resources; rejects only with the signal's reason. */
  async ready(signal?: AbortSignal): Promise<void> {
    const isReady = (names: readonly string[]) =>
      [...this.#plugins].every(([name, plugin]) => plugin === undefined || names.includes(name));
    let names = this.registered.value ?? [];
    while (!isReady(names)) names = await this.registered.next(signal);
  }

  async close(): Promise<void> {
    this.#unsubscribe();
    await Promise.all([...this.#plugins.values()].map((plugin) => plugin?.stop()));
    await this.#client.close();
  }

  #startMissing(): void {
    for (const resource of this.#options.offer.resources()) {
      if (!this.#plugins.has(resource)) this.#plugins.set(resource, this.#start(resource));
    }
  }

  #start(resource: string): ResourceRegistration | undefined {
    const { log } = this.#options;
    const problem = resourceNameProblem(resource);
    if (problem !== undefined) {
      log.error("resource-name-refused", { resource, problem });
      this.#badName.raise(`Kubelet takes no resource of the name ${resource}: ${problem}`, resource);
      return undefined;
    }
    const onRegistered = (isRegistered: boolean) => this.#note(resource, isRegistered);
    return new ResourceRegistration({
      ...this.#options,
      resource,
      client: this.#client,
      unregistered: this.#unregistered,
      elsewhere: this.#elsewhere,
      onRegistered,
    });
  }

  #note(resource: string, isRegistered: boolean): void {
    const others = (this.registered.value ?? []).filter((name) => name !== resource);
    this.registered.set(isRegistered ? [...others, resource].sort() : others);
  }
}
