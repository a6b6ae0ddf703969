import type { Inventory } from "./inventory.ts";
import type { DeviceView } from "./inventory-form.ts";
import { type PreferenceRequest, preferredAllocation } from "./preferred-allocation.ts";

/** The inventory as a device plugin wants to see it. */
export interface Offer {
  /** A resource that was offered once stays, if need be without devices: kubelet has to hear that there are none. */
  resources(): readonly string[];
  devices(resource: string): readonly DeviceView[];
  onChange(listener: (resources: ReadonlySet<string>) => void): () => void;
  /** @throws {InventoryError} when one of the ids cannot be reserved; none of them is then. */
  allocate(resource: string, ids: readonly string[]): void;
  preferred(resource: string, preference: PreferenceRequest): readonly string[];
}

/**
 * @param onStale called with the connection that still holds a VF which kubelet gives to a new pod: it has to be closed.
 */
export function offerOf(inventory: Inventory, onStale: (connectionId: string) => void): Offer {
  const offered = new Set<string>();
  return {
    resources() {
      for (const resource of inventory.resources) offered.add(resource);
      return [...offered];
    },
    devices: (resource) => inventory.devicesOf(resource),
    onChange: (listener) => inventory.onChange(({ resources }) => listener(resources)),
    allocate(_resource, ids) {
      const reserved: string[] = [];
      const stale: string[] = [];
      try {
        for (const id of ids) {
          const { isNew, heldBy } = inventory.reserveToken(id);
          if (isNew) reserved.push(id);
          if (heldBy !== undefined) stale.push(heldBy);
        }
      } catch (error) {
        for (const id of reserved) inventory.releaseToken(id);
        throw error;
      }
      for (const connectionId of stale) onStale(connectionId);
    },
    preferred: (_resource, preference) => preferredAllocation(preference, (id) => inventory.placementOf(id)),
  };
}
