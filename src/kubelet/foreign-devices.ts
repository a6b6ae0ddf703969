import type { Offer } from "../inventory/index.ts";

/** Healthy devices as kubelet knows them, by resource; undefined where it does not say. */
export type AllocatableDevices = ReadonlyMap<string, ReadonlySet<string>> | undefined;

/**
 * Devices that kubelet has under our resources and that are not ours: another device plugin has registered there. Kubelet takes each
 * registration and requests devices from the latest plugin, while the lists of both continue to replace each other
 * (pkg/kubelet/cm/devicemanager/manager.go, PluginConnected); before 1.25 it drops the first one's list (addEndpoint). The devices
 * of a plugin that has ended are unhealthy at once, and so not allocatable.
 */
export class ForeignDevices {
  readonly #offer: Pick<Offer, "resources" | "devices">;
  /** Ours now, and those that were: kubelet may not have heard yet. */
  readonly #own = new Map<string, Set<string>>();
  /** In how many answers in a row there were some. */
  readonly #streaks = new Map<string, number>();

  constructor(offer: Pick<Offer, "resources" | "devices">) {
    this.#offer = offer;
  }

  /** Takes in an answer of kubelet. */
  observe(allocatable: AllocatableDevices): void {
    for (const resource of this.#offer.resources()) {
      const own = this.#own.get(resource) ?? new Set();
      this.#own.set(resource, own);
      for (const { id } of this.#offer.devices(resource)) own.add(id);
      const isForeign = [...(allocatable?.get(resource) ?? [])].some((id) => !own.has(id));
      this.#streaks.set(resource, isForeign ? this.streak(resource) + 1 : 0);
    }
  }

  /** In how many answers in a row the resource had devices of another plugin. */
  streak(resource: string): number {
    return this.#streaks.get(resource) ?? 0;
  }
}
