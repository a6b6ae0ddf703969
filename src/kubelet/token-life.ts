import type { Checkpoint } from "./checkpoint.ts";
import type { PodHoldings } from "./pod-resources.ts";

/** What is so at one moment, by all sources. */
interface Sight {
  readonly holdings: PodHoldings;
  /** Undefined where it could not be read. */
  readonly checkpoint: Checkpoint | undefined;
  /** Device ids under which connections hold something, with the connection. */
  readonly connections: ReadonlyMap<string, string>;
  /** When the first of them was queried, and when the last had answered: an Allocate may lie between. */
  readonly queriedMs: number;
  readonly answeredMs: number;
}

/** What follows from a sight. */
interface Findings {
  /** Ids that pods hold and that are unknown here: a previous instance gave them out. */
  readonly adopted: readonly { readonly id: string; readonly resource: string }[];
  /** Ids that no pod has any more, each with a connection that still holds it: its pod has died without a Close. */
  readonly freed: readonly { readonly id: string; readonly connectionId: string | undefined }[];
}

interface Life {
  readonly resource: string;
  /** "namespace/name" of the pod that was last seen with it. */
  readonly pod: string | undefined;
  /** Since when no pod was seen to have it, without a doubt in between. */
  readonly missingSinceMs: number | undefined;
}

/**
 * Which device ids pods have, from Allocate until kubelet has taken them back: it never says so, so an id counts as taken
 * back when no pod was seen with it for a time. Pure. Why so careful: docs/decisions/014-when-a-token-is-free.md.
 */
export class TokenLife {
  readonly #graceMs: number;
  readonly #lives = new Map<string, Life>();

  /** @param graceMs at least two intervals between sights. */
  constructor(graceMs: number) {
    this.#graceMs = graceMs;
  }

  /** How many ids pods have, as far as we know. */
  get size(): number {
    return this.#lives.size;
  }

  /** Kubelet gives the id to a pod; it does not say to which. What was known of an earlier pod is void. */
  allocated(id: string, resource: string): void {
    this.#lives.set(id, { resource, pod: undefined, missingSinceMs: undefined });
  }

  /** Nothing is known at the moment: no time counts that has passed up to the next sight. */
  doubt(): void {
    for (const [id, life] of this.#lives) this.#lives.set(id, { ...life, missingSinceMs: undefined });
  }

  /** Takes in what is so now. Ids that it names as freed are forgotten. */
  observe(sight: Sight): Findings {
    const adopted = this.#adopt(sight);
    const busy = resourcesByPod(sight.holdings);
    const freed: Findings["freed"][number][] = [];
    for (const [id, life] of this.#lives) {
      const holder = sight.holdings.devices.get(id);
      if (holder || mayHold(id, life, sight, busy)) {
        const { resource, pod } = holder ?? life;
        this.#lives.set(id, { resource, pod, missingSinceMs: undefined });
        continue;
      }
      const missingSinceMs = life.missingSinceMs ?? sight.answeredMs;
      if (sight.queriedMs - missingSinceMs < this.#graceMs) {
        this.#lives.set(id, { ...life, missingSinceMs });
      } else {
        this.#lives.delete(id);
        freed.push({ id, connectionId: sight.connections.get(id) });
      }
    }
    return { adopted, freed };
  }

  #adopt({ holdings, connections }: Sight): Findings["adopted"] {
    const adopted = [...holdings.devices]
      .filter(([id]) => !this.#lives.has(id))
      .map(([id, { resource }]) => ({ id, resource }));
    for (const { id, resource } of adopted) this.allocated(id, resource);
    // A connection found on the node whose pod may have died while no forwarder ran.
    for (const id of connections.keys()) if (!this.#lives.has(id)) this.allocated(id, "");
    return adopted;
  }
}

/** Whether a pod can have the id although the list does not say so. */
function mayHold(id: string, { resource, pod }: Life, sight: Sight, busy: ReadonlyMap<string, Set<string>>): boolean {
  const { holdings, checkpoint } = sight;
  // Plain init containers are in no list: for a pod that never was there only the checkpoint can speak.
  if (pod === undefined) return checkpoint?.has(id) ?? false;
  if (!holdings.pods.has(pod)) return false; // ended, whatever an old checkpoint says
  // A later pod of the same name has other ids of the resource.
  if (busy.get(pod)?.has(resource)) return false;
  return checkpoint?.has(id) ?? true;
}

function resourcesByPod({ devices }: PodHoldings): ReadonlyMap<string, Set<string>> {
  const busy = new Map<string, Set<string>>();
  for (const { pod, resource } of devices.values()) busy.set(pod, (busy.get(pod) ?? new Set()).add(resource));
  return busy;
}
