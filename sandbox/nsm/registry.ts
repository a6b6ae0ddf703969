import type { Clock, Timer } from "../../src/async/index.ts";
import type { NetworkService, NetworkServiceEndpoint } from "../../src/gen/registry_pb.ts";
import type { Fd } from "../../src/kernel/index.ts";

/** An endpoint as it stands in the registry. */
export interface EndpointEntry {
  /** As registered; `url` is where its socket can be reached from this process. */
  readonly endpoint: NetworkServiceEndpoint;
  /** The passed descriptor of its unix socket; undefined when it came with a URL of its own. */
  readonly socket: Fd | undefined;
}

/** One change that a watcher hears of. */
export interface RegistryChange<T> {
  readonly entry: T;
  readonly deleted: boolean;
}

/** Named things that can be put, removed and watched. */
class Shelf<T> {
  readonly #entries = new Map<string, T>();
  readonly #listeners = new Set<(change: RegistryChange<T>) => void>();

  get(name: string): T | undefined {
    return this.#entries.get(name);
  }

  all(): readonly T[] {
    return [...this.#entries.values()];
  }

  put(name: string, entry: T): void {
    this.#entries.set(name, entry);
    this.#notify({ entry, deleted: false });
  }

  remove(name: string): T | undefined {
    const entry = this.#entries.get(name);
    if (entry === undefined || !this.#entries.delete(name)) return undefined;
    this.#notify({ entry, deleted: true });
    return entry;
  }

  watch(listener: (change: RegistryChange<T>) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  #notify(change: RegistryChange<T>): void {
    for (const listener of [...this.#listeners]) listener(change);
  }
}

/** Which network services exist and which endpoints serve them. Endpoints leave when they expire, services stay. */
export class Registry {
  readonly services = new Shelf<NetworkService>();
  readonly endpoints = new Shelf<EndpointEntry>();
  /**
   * Who had the name of an endpoint first, by SPIFFE ID: no other may have it, also when its entry has expired, until that one has taken
   * itself out (sdk: registry/common/authorize, which stands before what expires; client_allowed.rego).
   */
  readonly owners = new Map<string, string>();
  readonly #clock: Clock;
  readonly #expiries = new Map<string, Timer>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Puts an endpoint in, in place of one of the same name, until it expires. The registry owns the descriptor. */
  putEndpoint(entry: EndpointEntry, expiresMs: number): void {
    const { name } = entry.endpoint;
    const before = this.endpoints.get(name);
    if (before?.socket !== entry.socket) before?.socket?.close();
    this.#expiries.get(name)?.cancel();
    this.#expiries.set(
      name,
      this.#clock.after(expiresMs - this.#clock.now(), () => this.removeEndpoint(name)),
    );
    this.endpoints.put(name, entry);
  }

  /** Takes an endpoint out; says whether it was there. */
  removeEndpoint(name: string): boolean {
    this.#expiries.get(name)?.cancel();
    this.#expiries.delete(name);
    const entry = this.endpoints.remove(name);
    entry?.socket?.close();
    return entry !== undefined;
  }

  /** Forgets everything, as an NSMgr without a cluster registry does when it dies. */
  clear(): void {
    for (const { endpoint } of this.endpoints.all()) this.removeEndpoint(endpoint.name);
    for (const { name } of this.services.all()) this.services.remove(name);
    this.owners.clear();
  }
}

/** Whether an endpoint fits a query: empty fields of the query match everything, labels must be a subset (nsm-protocol §1.4). */
export function matchesEndpoint(query: NetworkServiceEndpoint, endpoint: NetworkServiceEndpoint): boolean {
  return (
    (query.name === "" || query.name === endpoint.name) &&
    query.networkServiceNames.every((service) => endpoint.networkServiceNames.includes(service)) &&
    Object.entries(query.networkServiceLabels).every(([service, desired]) =>
      hasLabels(endpoint.networkServiceLabels[service]?.labels ?? {}, desired.labels),
    ) &&
    endpoint.url.includes(query.url)
  );
}

/** Whether a network service fits a query: empty fields of the query match everything. */
export function matchesService(query: NetworkService, service: NetworkService): boolean {
  return (
    (query.name === "" || query.name === service.name) && (query.payload === "" || query.payload === service.payload)
  );
}

/** Whether `labels` carries every label of `desired`. */
export function hasLabels(
  labels: Readonly<Record<string, string>>,
  desired: Readonly<Record<string, string>>,
): boolean {
  return Object.entries(desired).every(([key, value]) => labels[key] === value);
}
