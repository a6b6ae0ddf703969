// What a decision does: to the inventory, the journal and, for a repair, the node.
import type { DeviceAccess } from "../access/index.ts";
import { type Clock, messageOf } from "../async/index.ts";
import { conditionOf, type VfRecord } from "../inventory/index.ts";
import type { DeviceNumber } from "../kernel/index.ts";
import type { PodsOfTokens } from "../kubelet/index.ts";
import type { AdoptedGrants, KernelVfEntry, NodeJournal, VfEntry } from "../mechanisms/index.ts";
import type { Node } from "../node/index.ts";
import type { JournalEntry } from "../nsm/index.ts";
import type { PciAddress } from "../pci/index.ts";
import type { Decision, Repair, Subject } from "./decide.ts";
import { cleanVf, type RestoreParts, restoreVf, revokeAndRestore } from "./restore.ts";

export interface ActionsOptions extends RestoreParts {
  readonly node: Node;
  readonly journal: Pick<NodeJournal, "vfs" | "left" | "keepVf" | "forgetVf" | "drop">;
  /** Or why this node cannot give devices to pods. */
  readonly access: DeviceAccess | Error;
  readonly grants: AdoptedGrants;
  /** Which pods kubelet has given our devices. */
  readonly pods: Pick<PodsOfTokens, "podsWith">;
  readonly clock: Clock;
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

type Settlement = Extract<Decision, { readonly kind: "await" | "adopt" | "contradiction" }>;

export class Actions {
  readonly #options: ActionsOptions;
  #running: RunningNode | undefined;

  constructor(options: ActionsOptions) {
    this.#options = options;
  }

  follow(running: RunningNode): void {
    this.#running = running;
  }

  /** All of them before any is revoked: what is taken from a pod must leave what another grant of that pod needs. */
  adoptGrants(): void {
    for (const entry of this.#options.journal.vfs.values()) if (entry.use === "vfio") this.#grantOf(entry);
  }

  /** Takes from our clients all access to our VFs that the journal does not have. */
  async clearStrays(): Promise<void> {
    const { node, access, pods } = this.#options;
    if (access instanceof Error) return;
    const devices: DeviceNumber[] = [];
    for (const { address, driverUse } of node.inventory.snapshot()) {
      if (driverUse !== "vfio") continue;
      const numbers = await node.binder.vfio.deviceOf(address).catch(() => undefined);
      if (numbers) devices.push(numbers.device);
    }
    await access.clearStrays(devices, await pods.podsWith(node.inventory.resources)); // logs by itself
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
      const ask = { address, connectionId, tokenId, use, state: "preparing" } as const;
      node.inventory.adopt({ ...ask, ...(owner !== undefined && { owner }) });
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
        await binder.bind(vf, "kernel");
        return true;
      case "quarantine":
        return inventory.raise(address, { code: "netdev-missing" });
      case "clean":
        await cleanVf(this.#options, vf);
        return inventory.clear(address, "netdev-missing");
      case "revoke":
        if (entry?.use === "vfio") await this.#revoke(vf, entry);
        return true;
      case "restore":
        await this.#restore(vf, entry?.use === "kernel" ? entry : undefined);
        return true;
    }
  }

  /** What the journal has of a VF that is no more. */
  async forget(address: PciAddress, connectionId: string): Promise<void> {
    this.#options.journal.forgetVf(address);
    await this.#options.journal.drop(connectionId).catch(() => {}); // made up for by the journal itself
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
    await this.#free(vf.address, entry.connectionId);
  }

  async #restore(vf: VfRecord, entry: KernelVfEntry | undefined): Promise<void> {
    const { node, clock } = this.#options;
    const { inventory } = node;
    const { address } = vf;
    const before = entry ?? conditionOf(vf, "drifted")?.before ?? conditionOf(vf, "recently-restored")?.before;
    if (!before) return;
    // No client gets it in the middle of this, nor if it fails.
    if (!conditionOf(vf, "contradicts-journal")) inventory.raise(address, { code: "drifted", before });
    await restoreVf(this.#options, vf, before);
    if (entry) inventory.raise(address, { code: "recently-restored", sinceMs: clock.monotonicMs(), before: entry });
    await this.#free(address, before.connectionId);
  }

  async #free(address: PciAddress, connectionId: string): Promise<void> {
    const { inventory } = this.#options.node;
    await this.forget(address, connectionId);
    const over = ["contradicts-journal", "unexplained-grant", "drifted"] as const;
    for (const code of over) inventory.clear(address, code);
  }

  #grantOf(entry: Extract<VfEntry, { readonly use: "vfio" }>) {
    const { access, grants, journal } = this.#options;
    return access instanceof Error ? undefined : grants.adopt(entry, { access, journal });
  }
}
