import {
  AccessError,
  type DeviceAccess,
  type DeviceGrant,
  type GrantRequest,
  type GrantState,
  type RecordState,
  type WrittenRule,
} from "../../src/access/index.ts";
import type { Clock } from "../../src/async/index.ts";
import type { DeviceNumber } from "../../src/kernel/index.ts";

/** Between two looks whether a pod is still there. */
const SCAN_MS = 500;

/** The device cgroups of a node's pods, as rules of version 2 that carry the mark of a connection. They outlive who has set them. */
export class MemoryCgroups {
  readonly #pods = new Map<string, Map<string, readonly DeviceNumber[]>>();
  readonly #uses = new Set<{ readonly podUid: string; readonly device: DeviceNumber }>();

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

  /** A process of the pod opens a device, and keeps it whatever becomes of the rules; the answer closes it. */
  use(podUid: string, device: DeviceNumber): () => void {
    const use = { podUid, device };
    this.#uses.add(use);
    return () => void this.#uses.delete(use);
  }

  /** UIDs of the pods that may open the device, or have it open. */
  usersOf(device: DeviceNumber): ReadonlySet<string> {
    const isIt = ({ major, minor }: DeviceNumber) => major === device.major && minor === device.minor;
    const may = [...this.#pods].filter(([, marks]) => [...marks.values()].flat().some(isIt)).map(([uid]) => uid);
    const have = [...this.#uses].filter((use) => isIt(use.device)).map(({ podUid }) => podUid);
    return new Set([...may, ...have]);
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
    void this.#scan();
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

  async rulesOf(): Promise<readonly WrittenRule[]> {
    return [];
  }

  hasPod({ uid }: NonNullable<GrantRequest["pod"]>): boolean {
    return this.#cgroups.marks(uid) !== undefined;
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
        const granted = marks();
        if (!granted) throw new AccessError({ kind: "no-cgroup", pod: podUid, searched: "in memory" });
        granted.set(connectionId, devices);
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

  async #scan(): Promise<void> {
    const { signal } = this.#stop;
    while (!signal.aborted) {
      await this.#clock.sleep(SCAN_MS, signal).catch(() => {}); // closed
      if (this.#goneListeners.size === 0) continue;
      for (const [connectionId, uid] of [...this.#watched]) {
        if (signal.aborted || this.#cgroups.marks(uid)) continue;
        this.#watched.delete(connectionId);
        for (const listener of this.#goneListeners) listener(connectionId);
      }
    }
  }
}
