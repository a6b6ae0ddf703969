// What a decision does: to the inventory, the journal and, for a repair, the node.
import type { DeviceAccess } from "../access/index.ts";
import { type Clock, messageOf } from "../async/index.ts";
import { conditionOf, type VfRecord } from "../inventory/index.ts";
import type { PodsOfTokens } from "../kubelet/index.ts";
import type { AdoptedGrants, NodeJournal, VfEntry } from "../mechanisms/index.ts";
import type { Node } from "../node/index.ts";
import type { JournalEntry } from "../nsm/index.ts";
import type { PciAddress } from "../pci/index.ts";
import type { Metrics } from "../telemetry/index.ts";
import { isUnfinished, type Subject } from "./decide.ts";
import type { Decision, Repair } from "./decision.ts";
import { Restorations } from "./restorations.ts";
import { type RestoreParts, restorePfSettings, revokeAndRestore, UNKNOWN_BEFORE } from "./restore.ts";
import { clearStrays } from "./strays.ts";

export interface ActionsOptions extends RestoreParts {
  readonly node: Node;
  readonly journal: Pick<NodeJournal, "vfs" | "left" | "unrestored" | "keepVf" | "forgetVf" | "drop">;
  /** Or why this node cannot give devices to pods. */
  readonly access: DeviceAccess | Error;
  readonly grants: AdoptedGrants;
  /** Which pods kubelet has given our devices. */
  readonly pods: Pick<PodsOfTokens, "podsWith" | "read">;
  /** Of a token that this node did not make: kubelet's word. Undefined where it has none. */
  resourceOf(tokenId: string): Promise<string | undefined>;
  readonly clock: Clock;
  readonly metrics: Metrics;
}

/** What there is to act on once the node serves. */
export interface RunningNode {
  /** Continues a connection whose VF came late. */
  adopt(connection: JournalEntry): void;
  /** Takes down a connection whose namespace has ended. */
  endConnection(connectionId: string): Promise<void>;
  /** Observes the whole node, as after an event. */
  rescan(): void;
}

type Settlement = Extract<Decision, { readonly kind: "await" | "adopt" | "clean-on" | "contradiction" }>;

export class Actions {
  readonly #options: ActionsOptions;
  readonly #restorations: Restorations;
  #running: RunningNode | undefined;

  constructor(options: ActionsOptions) {
    this.#options = options;
    this.#restorations = new Restorations(options, (address, entry) => this.#free(address, entry));
  }

  follow(running: RunningNode): void {
    this.#running = running;
  }

  /** A connection that was begun for a VF which its client had already, and not established: all is as before it. */
  async leaveFound(): Promise<void> {
    const { journal } = this.#options;
    for (const entry of [...journal.vfs.values()]) {
      const isBegun = journal.left.get(entry.connectionId)?.stage === "preparing";
      if (!entry.isFound || !isBegun) continue;
      journal.forgetVf(entry.address);
      await journal.drop(entry.connectionId).catch(() => {}); // it holds no VF any more
    }
  }

  /** All of them before any is revoked: what is taken from a pod must leave what another grant of that pod needs. */
  adoptGrants(): void {
    for (const entry of this.#options.journal.vfs.values()) if (entry.use === "vfio") this.#grantOf(entry);
  }

  /** Takes from our clients all access to our VFs that the journal does not have. */
  async clearStrays(): Promise<void> {
    const { node, access, pods } = this.#options;
    if (access instanceof Error) return;
    await clearStrays({ node, pods }, access);
  }

  /** What the journal and the node make of a VF together. Answers with the connection that is continued. */
  async settle(decision: Settlement, subject: Subject): Promise<JournalEntry | undefined> {
    const { entry, connection } = subject;
    if (!entry) return undefined;
    const fields = { vf: entry.address, connection: entry.connectionId };
    switch (decision.kind) {
      case "await":
        this.#options.log.warn("vf-of-journal-absent", fields);
        return undefined;
      case "clean-on":
        this.#options.node.inventory.raise(entry.address, { code: "being-cleaned" });
        this.#options.node.inventory.clear(entry.address, "unsettled");
        return undefined;
      case "contradiction":
        await this.#contradict(entry, decision.problem);
        return undefined;
      case "adopt":
        return connection && (await this.#adopt(entry, { ...connection, stage: decision.stage }));
    }
  }

  async #adopt(entry: VfEntry, connection: JournalEntry): Promise<JournalEntry | undefined> {
    const { node, log } = this.#options;
    const { address, connectionId, tokenId, use } = entry;
    const owner = entry.use === "vfio" ? entry.owner : undefined;
    try {
      const isKnown = node.inventory.resourceOf(tokenId) !== undefined;
      const resource = isKnown ? undefined : await this.#options.resourceOf(tokenId);
      const request = { address, connectionId, tokenId, resource, use, state: "preparing" } as const;
      node.inventory.adopt({ ...request, ...(owner !== undefined && { owner }) });
      if (connection.stage === "ready") node.inventory.setState(connectionId, "ready");
    } catch (error) {
      await this.#contradict(entry, messageOf(error));
      return undefined;
    }
    if (use === "kernel") node.inventory.raise(address, { code: "pending-netns", ending: "not" });
    node.inventory.clear(address, "unsettled");
    if (!this.#running) return connection;
    log.info("vf-appeared-late", { vf: address, connection: connectionId, stage: connection.stage });
    this.#running.adopt(connection);
    return undefined;
  }

  /** No client gets it, and a pod that had it loses it. */
  async #contradict(entry: VfEntry, problem: string): Promise<void> {
    const { node, access, log } = this.#options;
    const { address, connectionId, use } = entry;
    const fields = { vf: address, connection: connectionId };
    log.error("vf-contradicts-journal", { ...fields, problem });
    const code = use === "vfio" ? "unexplained-grant" : "contradicts-journal";
    node.inventory.raise(address, { code, error: problem });
    node.inventory.clear(address, "unsettled");
    if (entry.use !== "vfio" || access instanceof Error) return;
    await this.#grantOf(entry)
      ?.grant?.revoke()
      .catch((error: unknown) => {
        log.error("access-not-revoked", { ...fields, error: String(error) });
      });
  }

  /** What the previous instance has not made as the host had it is tried again before any client gets it. */
  resume(address: PciAddress): void {
    const { node, journal } = this.#options;
    if (!journal.unrestored.has(address) || journal.vfs.has(address)) return;
    // VFIO gets it just now: what is kept of it is for afterwards.
    if (node.binder.isChanging(address)) return;
    const vf = node.inventory.get(address);
    const isNewNeeded = journal.unrestored.isNewNeeded(address);
    const before = isNewNeeded ? undefined : journal.unrestored.beforeOf(address);
    if (!vf || !isUnfinished(vf, before)) return;
    node.inventory.raise(address, before ? { code: "drifted", before } : { code: "netdev-missing" });
  }

  /** Of another boot: the host has made its devices again since, and what the journal has of them means nothing now. */
  forgetOtherBoots(): void {
    const { journal, links } = this.#options;
    for (const address of journal.unrestored.addresses) {
      if (journal.unrestored.bootOf(address) !== links.settings?.boot) journal.unrestored.forget(address);
    }
  }

  /** Answers whether that is news: what is under way already is not. @throws what resisted. */
  async repair(repair: Exclude<Repair, "forget">, vf: VfRecord, entry: VfEntry | undefined): Promise<boolean> {
    const { inventory, binder } = this.#options.node;
    const { address } = vf;
    switch (repair) {
      case "rescan":
        this.#running?.rescan();
        return inventory.raise(address, { code: "mismatch", isRescanned: true });
      case "end-connection":
        return this.#end(vf);
      case "rebind":
        await binder.bind(vf, "kernel", this.#options.stopping);
        return true;
      case "quarantine":
        void this.#restorations.keep(address, { isNewNeeded: true });
        return inventory.raise(address, { code: "netdev-missing" });
      case "clean":
        await this.#restorations.clean(vf);
        return inventory.clear(address, "netdev-missing");
      case "revoke":
        if (entry?.use !== "vfio") return await this.#freeFromPods(vf);
        await this.#revoke(vf, entry);
        return true;
      case "restore":
        return await this.#restorations.restore(vf, entry?.use === "kernel" ? entry : undefined);
    }
  }

  /**
   * What the journal has of a VF that is no more, or is free, and of the connection that it was out for. Not where that has ended by itself
   * or is in service: its client may be back with another VF, or without one.
   */
  async forget(address: PciAddress, entry: VfEntry | undefined): Promise<void> {
    const { node, journal } = this.#options;
    journal.forgetVf(address);
    if (!entry || (entry.use === "kernel" && entry.isLeft)) return;
    const { connectionId } = entry;
    if (!journal.left.has(connectionId) || node.inventory.ofConnection(connectionId)) return;
    await journal.drop(connectionId).catch(() => {}); // made up for by the journal itself
  }

  /** Not waited for: an endpoint that does not answer would keep every other VF waiting. */
  #end(vf: VfRecord): boolean {
    const { inventory } = this.#options.node;
    const { address, connectionId = "" } = vf;
    const before = conditionOf(vf, "pending-netns")?.ending;
    if (before === "now") return false;
    inventory.raise(address, { code: "pending-netns", ending: "now" });
    void this.#running?.endConnection(connectionId).finally(() => {
      const still = inventory.get(address);
      if (still && conditionOf(still, "pending-netns")) {
        inventory.raise(address, { code: "pending-netns", ending: "again" });
      }
    });
    return before !== "again";
  }

  async #revoke(vf: VfRecord, entry: Extract<VfEntry, { readonly use: "vfio" }>): Promise<void> {
    const left = this.#grantOf(entry);
    if (!left) return;
    await revokeAndRestore(this.#options, vf, left);
    this.#options.grants.take(entry);
    await this.#free(vf.address, entry);
  }

  /** Answers whether the pods that could open it are gone. @throws where a process has it open all the same. */
  async #freeFromPods(vf: VfRecord): Promise<boolean> {
    const { node, access } = this.#options;
    const open = conditionOf(vf, "open-to-pod");
    if (!open || access instanceof Error || open.pods.some((uid) => access.hasPod({ uid }))) return false;
    await node.binder.vfio.refuseOpen(vf.address);
    await restorePfSettings(this.#options, vf, UNKNOWN_BEFORE);
    return node.inventory.clear(vf.address, open);
  }

  async #free(address: PciAddress, entry: VfEntry | undefined): Promise<void> {
    const { inventory } = this.#options.node;
    await this.forget(address, entry);
    const over = ["contradicts-journal", "unexplained-grant", "drifted", "being-cleaned"] as const;
    for (const code of over) inventory.clear(address, code);
  }

  #grantOf(entry: Extract<VfEntry, { readonly use: "vfio" }>) {
    const { access, grants, journal } = this.#options;
    return access instanceof Error ? undefined : grants.adopt(entry, { access, journal });
  }
}
