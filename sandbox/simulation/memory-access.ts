import {
  AccessError,
  type DeviceAccess,
  type DeviceGrant,
  type GrantRequest,
  type GrantState,
  type RecordState,
} from "../../src/access/index.ts";
import type { Clock } from "../../src/async/index.ts";
import type { DeviceNumber } from "../../src/kernel/index.ts";

/** Between two looks whether a pod is still there. */
const LOOK_MS = 500;

/** The device cgroups of a node's pods, as rules of version 2 that carry the mark of a connection. They outlive who has set them. */
export class MemoryCgroups {
  readonly #pods = new Map<string, Map<string, readonly DeviceNumber[]>>();

  addPod(uid: string): void {
    this.#pods.set(uid, new Map());
  }

  removePod(uid: string): void {
    this.#pods.delete(uid);
  }

  /** What the pod's processes may open, by connection; undefined when it has gone. */
  marks(uid: string): Map<string, readonly DeviceNumber[]> | undefined {
    return this.#pods.get(uid);
  }

  /** Every device that a pod may open, with the pod: "245:3 pod 1234". */
  get open(): readonly string[] {
    return [...this.#pods].flatMap(([uid, marks]) =>
      [...marks.values()].flat().map(({ major, minor }) => `${major}:${minor} pod ${uid}`),
    );
  }

  /** As one forwarder sees them. */
  openAccess(clock: Clock): DeviceAccess {
    return new MemoryAccess(this, clock);
  }
}

class MemoryAccess implements DeviceAccess {
  readonly version = 2;
  readonly #cgroups: MemoryCgroups;
  readonly #clock: Clock;
  readonly #watched = new Map<string, string>();
  readonly #goneListeners = new Set<(connectionId: string) => void>();
  readonly #adopted = new Set<string>();
  readonly #stop = new AbortController();

  constructor(cgroups: MemoryCgroups, clock: Clock) {
    this.#cgroups = cgroups;
    this.#clock = clock;
    void this.#look();
  }

  open({ connectionId, pod, devices, record }: GrantRequest): DeviceGrant {
    if (!pod) throw new AccessError({ kind: "no-pod" });
    return this.#grant({ connectionId, podUid: pod.uid, containers: "*", devices, wrote: [] }, record);
  }

  adopt(state: GrantState, record: RecordState): DeviceGrant {
    this.#adopted.add(`${state.podUid} ${state.connectionId}`);
    this.#watched.set(state.connectionId, state.podUid);
    return this.#grant(state, record);
  }

  async clearStrays(_managed: readonly DeviceNumber[], podUids: Iterable<string>) {
    for (const uid of podUids) {
      const marks = this.#cgroups.marks(uid);
      for (const connection of marks?.keys() ?? []) {
        if (!this.#adopted.has(`${uid} ${connection}`)) marks?.delete(connection);
      }
    }
    return [];
  }

  async watch({ uid }: NonNullable<GrantRequest["pod"]>, connectionId: string): Promise<() => void> {
    if (this.#cgroups.marks(uid)) this.#watched.set(connectionId, uid);
    return () => void this.#watched.delete(connectionId);
  }

  onPodGone(listener: (connectionId: string) => void): () => void {
    this.#goneListeners.add(listener);
    return () => this.#goneListeners.delete(listener);
  }

  async close(): Promise<void> {
    this.#stop.abort(new Error("closed"));
    this.#watched.clear();
  }

  #grant(state: GrantState, record: RecordState): DeviceGrant {
    const { connectionId, podUid, devices } = state;
    const marks = () => this.#cgroups.marks(podUid);
    return {
      state,
      apply: async () => {
        await record(state);
        const standing = marks();
        if (!standing) throw new AccessError({ kind: "no-cgroup", pod: podUid, looked: "in memory" });
        standing.set(connectionId, devices);
        this.#watched.set(connectionId, podUid);
      },
      isInForce: async () => marks()?.has(connectionId) ?? false,
      revoke: async () => {
        marks()?.delete(connectionId);
        this.#watched.delete(connectionId);
      },
      letGo: () => void this.#watched.delete(connectionId),
    };
  }

  async #look(): Promise<void> {
    const { signal } = this.#stop;
    while (!signal.aborted) {
      await this.#clock.sleep(LOOK_MS, signal).catch(() => {}); // closed
      if (this.#goneListeners.size === 0) continue;
      for (const [connectionId, uid] of [...this.#watched]) {
        if (signal.aborted || this.#cgroups.marks(uid)) continue;
        this.#watched.delete(connectionId);
        for (const listener of this.#goneListeners) listener(connectionId);
      }
    }
  }
}
