/** One device id as kubelet is to see it. */
export interface Device {
  /** At most 63 characters. A secret: whoever knows it may ask for what it stands for. */
  readonly id: string;
  readonly healthy: boolean;
  /** NUMA node of the function behind it; undefined where the machine has but one. */
  readonly numaNode: number | undefined;
}

/** Kubelet's question which of the free devices go best together. */
export interface Preference {
  readonly available: readonly string[];
  /** Part of the answer in any case. */
  readonly mustInclude: readonly string[];
  readonly size: number;
}

/** What is to be offered to kubelet. Whoever keeps the functions fits this. */
export interface TokenSource {
  /** Resource names: "worker.domain/10G". One that has been offered stays offered, if need be without devices. */
  resources(): readonly string[];
  /** All devices of a resource, the unhealthy ones too: kubelet drops what is not named. */
  devices(resource: string): readonly Device[];
  /** Calls back with the resources of which some device may look different. Returns how to stop. */
  onChange(listener: (resources: ReadonlySet<string>) => void): () => void;
  /**
   * Reserves all the ids for pods, or none; an id that is reserved already stays so.
   * @throws when one cannot be reserved: kubelet then fails the pod with the message
   */
  allocate(resource: string, ids: readonly string[]): void | Promise<void>;
  preferred(resource: string, preference: Preference): readonly string[];
}
