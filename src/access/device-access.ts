import { KeyedQueue, type Timer } from "../async/index.ts";
import type { CgroupFolder, DeviceNumber } from "../kernel/index.ts";
import { timed } from "../telemetry/index.ts";
import { CgroupV1Rules } from "./cgroup-v1-rules.ts";
import { CgroupV2Rules } from "./cgroup-v2-rules.ts";
import { openHierarchy, PodFinder } from "./find-pod-cgroup.ts";
import type {
  DeviceAccess,
  DeviceAccessOptions,
  DeviceGrant,
  GrantRequest,
  GrantState,
  PodRef,
  RecordState,
  StrayAccess,
  WrittenRule,
} from "./grant.ts";
import { HeldGrant } from "./held-grant.ts";
import { type AccessMetrics, accessMetrics } from "./metrics.ts";
import { PodAccess } from "./pod-access.ts";
import { isPodUid } from "./pod-name.ts";
import { type Rules, withoutDevices } from "./rules.ts";

/**
 * The kernel reports no program that is replaced, so version 2 must be polled: one bpf(2) for each cgroup. A program that writes
 * rules of version 1 is reported by inotify, unless events were lost.
 */
const SCAN_MS = { 1: 2000, 2: 500 } as const;
const SCAN_SLICES = 16;
/** Every so many scans of a pod also read its folders, whose events may be lost: every 16 s. */
const FOLDER_SCANS = { 1: 8, 2: 32 } as const;
/** Events come in bursts when a container starts; a pod that continues making them is scanned no more often than this. */
const SETTLE_MS = 10;
const EVENT_SCAN_MS = 200;

/**
 * Opens the host's device cgroups: what the original's tools/cgroup is for.
 * @throws {AccessError} no-hierarchy.
 */
export function openDeviceAccess(options: DeviceAccessOptions): DeviceAccess {
  return new HostDeviceAccess(options);
}

class HostDeviceAccess implements DeviceAccess {
  readonly version: 1 | 2;
  readonly #options: DeviceAccessOptions;
  readonly #root: CgroupFolder;
  readonly #finder: PodFinder;
  readonly #rules: Rules;
  readonly #metrics: AccessMetrics;
  /** By UID. Each is touched in its own turn only. */
  readonly #pods = new Map<string, PodAccess>();
  readonly #queue = new KeyedQueue<string>();
  readonly #soon = new Map<string, Timer>();
  /** Pods whose next scan waits for its turn. */
  readonly #scanning = new Set<string>();
  readonly #goneListeners = new Set<(connectionId: string) => void>();
  #timer: Timer | undefined;
  #scans = 0;
  #hasReportedBlind = false;

  constructor(options: DeviceAccessOptions) {
    const { version, path, root } = openHierarchy(options.cgroupPath, options.clock, options.writes);
    this.version = version;
    this.#options = options;
    this.#root = root;
    this.#finder = new PodFinder(root);
    this.#rules = version === 1 ? new CgroupV1Rules(root) : new CgroupV2Rules(root, options.log);
    this.#metrics = accessMetrics(options.metrics, () => this.#grantCount());
    options.log.info("device-cgroups", { version, path });
  }

  open(request: GrantRequest): DeviceGrant {
    const grant = HeldGrant.ofRequest(request);
    if (request.pod === undefined) {
      this.#options.log.info("access-by-client-cgroup", {
        connection: request.connectionId,
        cgroupDir: request.cgroupDir,
      });
    }
    return this.#handle(grant);
  }

  adopt(state: GrantState, record: RecordState): DeviceGrant {
    const grant = HeldGrant.ofState(state, record);
    this.#podOf(state.podUid).adopt(grant);
    this.#watch();
    return this.#handle(grant);
  }

  async clearStrays(
    managed: readonly DeviceNumber[],
    podUids: Iterable<string>,
    except: ReadonlyMap<string, readonly DeviceNumber[]> = new Map(),
  ): Promise<readonly StrayAccess[]> {
    // Pods of the journal have grants by now.
    const ours = new Set([...this.#pods.keys(), ...[...podUids].filter(isPodUid)]);
    const found: StrayAccess[] = [];
    for (const uid of new Set([...ours, ...this.#finder.uids()])) {
      const isOurs = ours.has(uid);
      const others = withoutDevices(managed, except.get(uid) ?? []);
      found.push(...(await this.#inTurn(uid, (pod) => (isOurs ? pod.clearStrays(others) : pod.straysLeft(others)))));
    }
    for (const stray of found) this.#options.log.warn("access-stray", { ...stray });
    return found;
  }

  rulesOf({ uid }: PodRef, devices: readonly DeviceNumber[]): Promise<readonly WrittenRule[]> {
    return isPodUid(uid) ? this.#inTurn(uid, (pod) => pod.rulesOf(devices)) : Promise.resolve([]);
  }

  hasPod({ uid }: PodRef): boolean {
    return this.#finder.uids().includes(uid);
  }

  async watch(pod: PodRef, connectionId: string): Promise<() => void> {
    const watcher = HeldGrant.ofRequest({ connectionId, pod, cgroupDir: "", devices: [], record: async () => {} });
    const { podUid } = watcher.state;
    await this.#inTurn(podUid, async (known) => known.watch(watcher));
    return () => void this.#inTurn(podUid, async (known) => known.forget(watcher));
  }

  onPodGone(listener: (connectionId: string) => void): () => void {
    this.#goneListeners.add(listener);
    // One that was found gone before a listener was there is found again.
    for (const [uid, pod] of this.#pods) {
      pod.isGoneReported = false;
      this.#scanSoon(uid);
    }
    return () => this.#goneListeners.delete(listener);
  }

  async close(): Promise<void> {
    this.#goneListeners.clear();
    this.#timer?.cancel();
    this.#timer = undefined;
    for (const timer of this.#soon.values()) timer.cancel();
    this.#soon.clear();
    const letGo = async (pod: PodAccess) => {
      for (const grant of [...pod.grants]) pod.forget(grant);
    };
    await Promise.all([...this.#pods.keys()].map((uid) => this.#inTurn(uid, letGo)));
    this.#root.close();
  }

  #handle(grant: HeldGrant): DeviceGrant {
    const uid = grant.state.podUid;
    const measured = (step: "grant" | "revoke", work: () => Promise<void>) =>
      timed(this.#options.clock, (_outcome, seconds) => this.#metrics.seconds.observe({ step }, seconds), work);
    return {
      get state() {
        return grant.state;
      },
      apply: (signal) => measured("grant", () => this.#inTurn(uid, (pod) => pod.apply(grant, signal), signal)),
      isInForce: () => this.#inTurn(uid, (pod) => pod.isInForce(grant)),
      revoke: () => measured("revoke", () => this.#inTurn(uid, (pod) => pod.revoke(grant))),
      letGo: () => void this.#inTurn(uid, async (pod) => pod.forget(grant)),
    };
  }

  #grantCount(): number {
    return [...this.#pods.values()].flatMap(({ grants }) => [...grants]).filter(({ devices }) => devices.length > 0)
      .length;
  }

  #podOf(uid: string): PodAccess {
    const pod =
      this.#pods.get(uid) ??
      new PodAccess(uid, {
        root: this.#root,
        finder: this.#finder,
        rules: this.#rules,
        log: this.#options.log,
        onRepair: () => this.#metrics.repairs.add({}),
        onChange: () => this.#scanSoon(uid),
        onBlind: (code) => this.#reportBlind(code),
        onGone: (connectionIds) => this.#notifyGone(connectionIds),
      });
    this.#pods.set(uid, pod);
    return pod;
  }

  /** Once: it is so for the whole user, and lasts. */
  #reportBlind(code: string): void {
    if (this.#hasReportedBlind) return;
    this.#hasReportedBlind = true;
    const reason =
      "No inotify watch is left, so that new containers of pods with VFIO wait up to 16 s for their devices; " +
      "raise fs.inotify.max_user_watches (ENOSPC) or fs.inotify.max_user_instances (EMFILE) on the node";
    this.#options.log.warn("access-not-watched", { code, reason });
  }

  #notifyGone(connectionIds: readonly string[]): void {
    for (const listener of this.#goneListeners) for (const id of connectionIds) listener(id);
  }

  /** One at a time for each pod; a pod without grants takes nothing. */
  #inTurn<T>(uid: string, act: (pod: PodAccess) => Promise<T>, signal?: AbortSignal): Promise<T> {
    const job = async () => {
      const pod = this.#podOf(uid);
      try {
        return await act(pod);
      } finally {
        if (pod.grants.size === 0) {
          pod.close();
          this.#pods.delete(uid);
        }
        this.#watch();
      }
    };
    return this.#queue.run(uid, job, signal);
  }

  #watch(): void {
    if (this.#pods.size === 0) {
      this.#timer?.cancel();
      this.#timer = undefined;
    } else {
      const slices = Math.min(this.#pods.size, SCAN_SLICES);
      this.#timer ??= this.#options.clock.after(SCAN_MS[this.version] / slices, () => this.#scanSome(slices));
    }
  }

  /** A few pods at each time, so that many do not hold up everything else. */
  #scanSome(slices: number): void {
    this.#timer = undefined;
    const uids = [...this.#pods.keys()];
    const count = Math.ceil(uids.length / slices);
    for (let i = 0; i < count; i++) {
      const at = this.#scans++;
      const uid = uids[at % uids.length] ?? "";
      const round = Math.floor(at / uids.length);
      this.#scan(uid, (round + at) % FOLDER_SCANS[this.version] === 0);
    }
    this.#watch();
  }

  #scanSoon(uid: string): void {
    if (this.#soon.has(uid)) return;
    const { clock } = this.#options;
    const sinceMs = clock.monotonicMs() - (this.#pods.get(uid)?.eventScanAtMs ?? Number.NEGATIVE_INFINITY);
    const scan = () => {
      this.#soon.delete(uid);
      const pod = this.#pods.get(uid);
      if (pod) pod.eventScanAtMs = clock.monotonicMs();
      this.#scan(uid, true);
    };
    this.#soon.set(uid, clock.after(Math.max(SETTLE_MS, EVENT_SCAN_MS - sinceMs), scan));
  }

  #scan(uid: string, atFolders: boolean): void {
    if (!this.#pods.has(uid) || (this.#scanning.has(uid) && !atFolders)) return;
    this.#scanning.add(uid);
    void this.#inTurn(uid, (pod) => {
      this.#scanning.delete(uid);
      return pod.rescan({ atFolders });
    });
  }
}
