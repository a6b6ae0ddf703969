import { messageOf } from "../async/index.ts";
import type { CgroupFolder, DeviceNumber } from "../kernel/index.ts";
import type { Log } from "../telemetry/index.ts";
import { AccessError } from "./error.ts";
import type { PodFinder } from "./find-pod-cgroup.ts";
import type { StrayAccess, WrittenRule } from "./grant.ts";
import type { HeldGrant } from "./held-grant.ts";
import { PodTree, type TreeListener } from "./pod-tree.ts";
import { type Cgroup, deviceText, type Known, type Ours, type Rules } from "./rules.ts";

/** So often a cgroup is read again before its next turn, when its rules change while we write them. */
const PASSES = 3;
/** New cgroups may appear while others are taken from. */
const SWEEPS = 5;

/** What all pods share. */
interface PodParts extends TreeListener {
  readonly root: CgroupFolder;
  readonly finder: PodFinder;
  readonly rules: Rules;
  readonly log: Log;
  /** Called with each cgroup in which something was missing that had been there. */
  readonly onRepair: () => void;
  /** Requests `rescan` soon. */
  readonly onChange: () => void;
  /** Called with the connections of all kept grants when the pod has no cgroup any more. */
  readonly onGone: (connectionIds: readonly string[]) => void;
}

/** All grants of one pod. Its methods are called one after the other. */
export class PodAccess {
  readonly uid: string;
  readonly grants = new Set<HeldGrant>();
  /** When an event last caused a scan. */
  eventScanAtMs = Number.NEGATIVE_INFINITY;
  isGoneReported = false;
  readonly #parts: PodParts;
  #tree: PodTree | undefined;
  /** The fingerprint of each cgroup in which all kept grants were found in force. */
  #settled = new WeakMap<Cgroup, string>();
  #trouble: string | undefined;
  #hasScanned = false;
  #isCutLogged = false;

  constructor(uid: string, parts: PodParts) {
    this.uid = uid;
    this.#parts = parts;
  }

  /** A grant of a previous instance, of which is not known whether it is in force. */
  adopt(grant: HeldGrant): void {
    this.grants.add(grant);
    this.#settled = new WeakMap();
  }

  /** @throws {AccessError}; what it did is undone then. */
  async apply(grant: HeldGrant, signal?: AbortSignal): Promise<void> {
    this.grants.add(grant);
    const cgroups = this.#find(grant);
    signal?.throwIfAborted();
    const done: { cgroup: Cgroup; ours: Ours }[] = [];
    try {
      for (const cgroup of cgroups) {
        if (grant.isKept && (await this.#isAsSettled(cgroup))) continue;
        const ours = await this.#allow(cgroup, grant);
        if (ours) done.push({ cgroup, ours });
      }
    } catch (error) {
      for (const { cgroup, ours } of done.toReversed()) {
        const left = await this.#parts.rules.withdraw(cgroup, ours);
        if (left.length > 0) this.#parts.log.warn("access-not-undone", { pod: this.uid, left });
      }
      throw error;
    }
    grant.isKept = true;
    for (const cgroup of cgroups) {
      if (!(await this.#isAsSettled(cgroup))) await this.#settle(cgroup);
    }
  }

  /** Only to get the pod's end; nothing where it has none to wait for. */
  watch(watcher: HeldGrant): void {
    if (!this.#current()) return;
    watcher.isKept = true;
    this.grants.add(watcher);
  }

  async isInForce(grant: HeldGrant): Promise<boolean> {
    const tree = this.#current();
    const cgroups = tree?.meant(grant.state.containers) ?? [];
    if (cgroups.length < 2) return false;
    for (const cgroup of cgroups) {
      const isAsLeft = grant.isKept && (await this.#isAsSettled(cgroup));
      if (!isAsLeft && !(await this.#parts.rules.isInForce(cgroup, grant.devices))) return false;
    }
    return true;
  }

  /** @throws {AccessError} not-revoked. */
  async revoke(grant: HeldGrant): Promise<void> {
    this.grants.add(grant);
    grant.isKept = false;
    const tree = this.#current();
    await grant.handOver((rule) =>
      this.#kept().find(
        (other) =>
          other.wants(rule) && tree?.meant(other.state.containers).some(({ path }) => path === rule.cgroup) === true,
      ),
    );
    const left = await this.#sweep(tree, (cgroup) => ({
      devices: grant.devices.filter((device) => !this.#wanting(cgroup).some((other) => other.wants(device))),
      wrote: grant.wroteInto(cgroup),
    }));
    if (left.length > 0) throw new AccessError({ kind: "not-revoked", pod: this.uid, left });
    this.forget(grant);
  }

  /** Makes sure of all kept grants: for the clock, and after events. */
  async rescan({ atFolders }: { readonly atFolders: boolean }): Promise<void> {
    if (this.#kept().length === 0) return;
    try {
      // A pod that is gone is not searched for at every scan; one whose containers have ended goes next, and no event says so.
      const atPod = atFolders || !this.#hasScanned || this.#tree?.cgroups.length === 1;
      const tree = atPod ? this.#current() : this.#tree;
      this.#hasScanned = true;
      if (atPod || tree) this.#noteWhether(tree !== undefined);
      const isOnlyWatched = this.#kept().every(({ devices }) => devices.length === 0);
      for (const cgroup of isOnlyWatched ? [] : (tree?.cgroups ?? [])) {
        if (!(await this.#isAsSettled(cgroup))) await this.#settle(cgroup);
      }
      this.#trouble = undefined;
    } catch (error) {
      this.#logOnce(messageOf(error));
    }
  }

  /** Takes away what no grant explains. Only for pods that are known to be clients of this node. */
  async clearStrays(managed: Known["managed"]): Promise<readonly StrayAccess[]> {
    const found: StrayAccess[] = [];
    for (const { cgroup, devices } of await this.#strays(managed)) {
      const wrote = devices.map((device) => ({ ...device, cgroup: cgroup.path, access: "rw" }));
      const left = await this.#parts.rules.withdraw(cgroup, { devices, wrote });
      found.push({ cgroup: cgroup.path, devices, ...(left.length > 0 ? { problem: left.join("; ") } : {}) });
    }
    return found;
  }

  /** Ours and those of others. */
  async rulesOf(devices: readonly DeviceNumber[]): Promise<readonly WrittenRule[]> {
    return (this.#current()?.cgroups ?? []).flatMap((cgroup) => this.#parts.rules.rulesFor(cgroup, devices));
  }

  /** The same of a pod that is no client as far as is known: it keeps what it has. */
  async straysLeft(managed: Known["managed"]): Promise<readonly StrayAccess[]> {
    const problem =
      "left as it is: neither the journal nor kubelet says that the pod is a client of this node; see NSM_CGROUP_PATH";
    return (await this.#strays(managed)).map(({ cgroup, devices }) => ({ cgroup: cgroup.path, devices, problem }));
  }

  async #strays(managed: Known["managed"]): Promise<{ readonly cgroup: Cgroup; readonly devices: Known["managed"] }[]> {
    const found = [];
    for (const cgroup of this.#current()?.cgroups ?? []) {
      const explained = this.#wanting(cgroup).flatMap(({ devices }) => devices);
      const devices = await this.#parts.rules.strays(cgroup, { explained, managed });
      if (devices.length > 0) found.push({ cgroup, devices });
    }
    return found;
  }

  /** Touches nothing. */
  forget(grant: HeldGrant): void {
    grant.isKept = false;
    this.grants.delete(grant);
  }

  close(): void {
    this.#tree?.close();
    this.#tree = undefined;
  }

  #kept(): readonly HeldGrant[] {
    return [...this.grants].filter(({ isKept }) => isKept);
  }

  #noteWhether(isThere: boolean): void {
    if (!isThere && !this.isGoneReported) this.#parts.onGone(this.#kept().map(({ state }) => state.connectionId));
    this.isGoneReported = !isThere;
  }

  /** The kept grants that concern the cgroup. */
  #wanting(cgroup: Cgroup): readonly HeldGrant[] {
    const withDevices = this.#kept().filter(({ devices }) => devices.length > 0);
    return withDevices.filter(({ state }) => this.#tree?.meant(state.containers).includes(cgroup));
  }

  /** The pod's cgroups as they are now. */
  #current(): PodTree | undefined {
    this.#tree?.refresh();
    if (this.#tree?.cgroups.length === 0) this.#tree = undefined;
    this.#tree ??= PodTree.open(this.#parts, this.uid, this.#parts);
    if (this.#tree?.isCut && !this.#isCutLogged) {
      const { length: visited } = this.#tree.cgroups;
      const reason =
        "The pod has more cgroups than are looked at: processes of the others may be kept from its devices";
      this.#parts.log.warn("access-cgroups-left-out", { pod: this.uid, visited, reason });
      this.#isCutLogged = true;
    }
    return this.#tree;
  }

  /** @throws {AccessError} no-cgroup, foreign-cgroup. */
  #find({ state, seenPodPath }: HeldGrant): readonly Cgroup[] {
    const tree = this.#current();
    const missing = (searched: string) => new AccessError({ kind: "no-cgroup", pod: this.uid, searched });
    if (!tree) throw missing("no cgroup beneath kubepods is named after it; has it ended, or is it not on this node?");
    // A client in a cgroup namespace of an outer host sees more in front of it.
    if (seenPodPath !== undefined && seenPodPath !== tree.path && !seenPodPath.endsWith(`/${tree.path}`)) {
      throw new AccessError({ kind: "foreign-cgroup", text: seenPodPath, pod: this.uid });
    }
    const cgroups = tree.meant(state.containers);
    if (cgroups.length < 2) throw missing(`${tree.path} has no container ${state.containers}`);
    return cgroups;
  }

  #allow(cgroup: Cgroup, grant: HeldGrant): Promise<Ours | undefined> {
    return this.#parts.rules.allow(cgroup, grant.devices, (rules) => grant.intend(rules));
  }

  async #isAsSettled(cgroup: Cgroup): Promise<boolean> {
    return this.#settled.get(cgroup) === (await this.#parts.rules.fingerprint(cgroup));
  }

  /** Until all kept grants are found in force. */
  async #settle(cgroup: Cgroup): Promise<void> {
    const wasSettled = this.#settled.has(cgroup);
    for (let pass = 0; pass < PASSES; pass++) {
      // Taken before the rules are read: what changes meanwhile shows the next time.
      const fingerprint = await this.#parts.rules.fingerprint(cgroup);
      let wrote = false;
      for (const grant of this.#wanting(cgroup)) wrote = (await this.#allow(cgroup, grant)) !== undefined || wrote;
      if (!wrote) {
        this.#settled.set(cgroup, fingerprint);
        return;
      }
      if (pass > 0) continue;
      const devices = this.#wanting(cgroup).flatMap((grant) => grant.devices.map(deviceText));
      this.#parts.log.info(wasSettled ? "access-repaired" : "access-extended", { cgroup: cgroup.path, devices });
      if (wasSettled) this.#parts.onRepair();
    }
  }

  /** Goes over the pod's cgroups until no new one has appeared; answers what is left. */
  async #sweep(tree: PodTree | undefined, oursIn: (cgroup: Cgroup) => Ours): Promise<readonly string[]> {
    const seen = new Set<Cgroup>();
    const left: string[] = [];
    for (let sweep = 0; sweep < SWEEPS; sweep++) {
      const fresh = (tree?.cgroups ?? []).filter((cgroup) => !seen.has(cgroup));
      if (fresh.length === 0) return left;
      // Those above first: on version 1 a rule that is taken from one goes from all beneath it.
      for (const cgroup of fresh) {
        seen.add(cgroup);
        left.push(...(await this.#parts.rules.withdraw(cgroup, oursIn(cgroup))));
      }
      tree?.refresh();
    }
    return [...left, `${tree?.path}: new cgroups keep appearing`];
  }

  #logOnce(trouble: string): void {
    if (trouble === this.#trouble) return;
    this.#trouble = trouble;
    this.#parts.log.warn("access-not-kept", { pod: this.uid, error: trouble });
  }
}
