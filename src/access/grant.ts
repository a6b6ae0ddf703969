import type { Clock } from "../async/index.ts";
import type { DeviceNumber, TextWrites } from "../kernel/index.ts";
import type { Log, Metrics } from "../telemetry/index.ts";

/** A pod as kubelet's records have it. */
export interface PodRef {
  /** As in kubelet's checkpoint: for a static pod its hash, not the UID of its mirror. */
  readonly uid: string;
}

/** A rule that we wrote into a version 1 cgroup because nothing allowed the same before. */
export interface WrittenRule extends DeviceNumber {
  /** Path beneath the hierarchy's root. */
  readonly cgroup: string;
  /** What we added: "r", "w" or "rw"; of a rule that was taken over what it allows. */
  readonly access: string;
}

/** All that must be known to take a grant back, also by another process: plain JSON, to be kept in a journal. */
export interface GrantState {
  readonly connectionId: string;
  readonly podUid: string;
  /** Which containers, by the name of their cgroup: a name in which `*` matches any text; "*" for all of the pod's. */
  readonly containers: string;
  /** Character devices. */
  readonly devices: readonly DeviceNumber[];
  /** Version 1 only; version 2 programs carry our mark themselves. Holds what is about to be written too. */
  readonly wrote: readonly WrittenRule[];
}

/** Keeps the state. It is called, and waited for, before each write that the state does not have yet. */
export type RecordState = (state: GrantState) => Promise<void>;

/** What one connection requests. */
export interface GrantRequest {
  readonly connectionId: string;
  /** Undefined where kubelet's records are silent: then `cgroupDir` must name one pod in the strict form. */
  readonly pod: PodRef | undefined;
  /** As the client sent it, or "": `kubepods/burstable/pod<uid>/*`. */
  readonly cgroupDir: string;
  /** Character devices, to be opened for reading and writing. */
  readonly devices: readonly DeviceNumber[];
  /** Called as long as the grant lives: containers that start later are written to as well. */
  readonly record: RecordState;
}

/** The access of one pod to some devices, for one connection. All calls for one pod run one after the other. */
export interface DeviceGrant {
  /** As it is now; the same object as was recorded last. */
  readonly state: GrantState;
  /**
   * Lets every container of the pod open the devices, all or none: a failure undoes what it did. Repeatable: reads first and
   * writes only what is missing. From then on it is kept so: containers that start later, filters that are installed again.
   * After a failure it wants `revoke` or `letGo`, or `apply` again.
   * @throws {AccessError}, or the signal's reason before it wrote anything.
   */
  apply(signal?: AbortSignal): Promise<void>;
  /** Whether every container of the pod can open the devices now. Reads only. */
  isInForce(): Promise<boolean>;
  /**
   * Revokes what we gave and reads back that it is gone; what another grant of the pod needs, and what the container's
   * own rules allow, stays. Nothing to do when the pod has gone. Call it again after a failure, also after one of `apply`.
   * @throws {AccessError} not-revoked, with what resisted.
   */
  revoke(): Promise<void>;
  /** Forgets it and touches nothing: the process stops, and the pod keeps what it has. */
  letGo(): void;
}

/** Access found in a pod's cgroup that carries our mark and that no grant explains. */
export interface StrayAccess {
  readonly cgroup: string;
  readonly devices: readonly DeviceNumber[];
  /** Why it could not be revoked; undefined when it was. */
  readonly problem?: string | undefined;
}

/** Which device nodes the pods of this node may open. */
export interface DeviceAccess {
  /** Which kind of hierarchy decides. */
  readonly version: 1 | 2;
  /**
   * A grant that is not applied yet; touches nothing.
   * @throws {AccessError} bad-name, foreign-cgroup.
   */
  open(request: GrantRequest): DeviceGrant;
  /** A grant of a previous instance, from its journal; `apply`, `isInForce` and `revoke` as if it were ours. Touches nothing. */
  adopt(state: GrantState, record: RecordState): DeviceGrant;
  /**
   * For the start, after every `adopt`: revokes what a previous instance left and no grant explains. On version 2 all that
   * carries our mark; on version 1, where rules carry none, rules for exactly one of the `managed` devices. Only from pods with
   * an adopted grant and from those of `podUids`: beneath a path that holds more than this node's pods, rules for the same
   * numbers, and marks of another forwarder, are not ours. Those are reported and left.
   * @param podUids pods that kubelet has given devices of ours, by its own record.
   * @param except of those, by UID, what they keep.
   */
  clearStrays(
    managed: readonly DeviceNumber[],
    podUids: Iterable<string>,
    except?: ReadonlyMap<string, readonly DeviceNumber[]>,
  ): Promise<readonly StrayAccess[]>;
  /**
   * Version 1: the rules for exactly these devices in the cgroups of the pod, ours and those of others. None where the pod has no cgroup, and
   * none on version 2. Reads only.
   */
  rulesOf(pod: PodRef, devices: readonly DeviceNumber[]): Promise<readonly WrittenRule[]>;
  /** Whether the pod has a cgroup now. */
  hasPod(pod: PodRef): boolean;
  /**
   * Watches the pod for a connection that holds something else of it than a device. Resolves with how to stop; nothing is
   * watched where the pod has no cgroup now.
   * @throws {AccessError} bad-name.
   */
  watch(pod: PodRef, connectionId: string): Promise<() => void>;
  /**
   * Calls back with the connection of each kept grant, and of each `watch`, whose pod has no cgroup any more: it has ended, and
   * no process of it can hold a device. Returns how to stop.
   */
  onPodGone(listener: (connectionId: string) => void): () => void;
  /** Stops keeping and lets go of everything; whatever is granted stays. */
  close(): Promise<void>;
}

/** What the module works on. */
export interface DeviceAccessOptions {
  /** NSM_CGROUP_PATH: the host's version 1 devices hierarchy; on a unified host the mount that holds this path is used. */
  readonly cgroupPath: string;
  /** Writes to files of cgroups; threads of our own by default. */
  readonly writes?: TextWrites;
  readonly clock: Clock;
  readonly log: Log;
  readonly metrics: Metrics;
}
