// Makes journal, inventory and node agree: before anything is served, then every few seconds and when the kernel says that a VF
// which concerns us has changed. What a running client has is only observed. docs/decisions/016 and 041.
import { KeyedQueue, type Timer } from "../async/index.ts";
import { conditionOf, type VfRecord } from "../inventory/index.ts";
import type { Uevent, UeventSource } from "../kernel/index.ts";
import type { JournalEntry } from "../nsm/index.ts";
import { isPciAddress, type PciAddress } from "../pci/index.ts";
import { type Metrics, type outcomes, timed } from "../telemetry/index.ts";
import { Actions, type ActionsOptions, type RunningNode } from "./actions.ts";
import { type Decision, decide, isMismatch, type Subject } from "./decide.ts";
import { GoneVfs } from "./gone-vfs.ts";
import { Repairs } from "./repairs.ts";
import { hasDrifted } from "./restore.ts";

export interface ReconcilerOptions extends ActionsOptions {
  readonly uevents: UeventSource;
  /** Between the end of one pass over everything and the next. */
  readonly intervalMs: number;
  readonly metrics: Metrics;
}

/** A VF that is restored brings several events. */
const SETTLE_MS = 20;
/** What is only so for a moment is work under way. */
const MISMATCH_MS = 200;
/** So long after it was restored, a write that came late can have changed a VF. */
const DRIFT_INTERVALS = 12;

const UNREADABLE = { isPresent: false, driver: undefined, iommuGroup: undefined, hasNetdev: false } as const;

/** What is known of a VF, by its address. */
type Observed = Subject & { readonly address: PciAddress };

/** `start()`, once; when the service is there, `follow()`. */
export class Reconciler {
  readonly #options: ReconcilerOptions;
  readonly #actions: Actions;
  readonly #repairs: Repairs;
  readonly #gone: GoneVfs;
  readonly #queue = new KeyedQueue<PciAddress>();
  /** VFs to be observed soon. */
  readonly #todo = new Set<PciAddress>();
  #timers: { next?: Timer; soon?: Timer } = {};
  #running: Promise<void> = Promise.resolve();
  #isStart = true;
  #isClosed = false;

  constructor(options: ReconcilerOptions) {
    this.#options = options;
    this.#actions = new Actions(options);
    this.#repairs = new Repairs({ ...options, actions: this.#actions });
    this.#gone = new GoneVfs(options);
  }

  /**
   * The first pass: compares the journal with the node, and changes nothing of a VF. Answers with the connections that are continued;
   * waits for no device. What comes later is settled when it comes.
   */
  async start(): Promise<readonly JournalEntry[]> {
    const { node, journal, log } = this.#options;
    const { inventory } = node;
    this.#actions.adoptGrants();
    const addresses = new Set([...journal.vfs.keys(), ...inventory.snapshot().map(({ address }) => address)]);
    const ofVfs = new Set([...journal.vfs.values()].map(({ connectionId }) => connectionId));
    const subjects = await Promise.all([...addresses].map((address) => this.#observe(address)));
    const continued: JournalEntry[] = [];
    for (const subject of subjects) {
      const connection = await this.#act(decide(subject), { ...subject, isHeard: true });
      if (connection) continued.push(connection);
    }
    for (const connection of [...journal.left.values()].filter(({ connectionId }) => !ofVfs.has(connectionId))) {
      // Where a VF was touched the journal would have it: none was yet, or it is restored.
      if (connection.mechanism === "NOOP") continued.push(connection);
      else await journal.drop(connection.connectionId).catch(() => {});
    }
    await this.#actions.clearStrays();
    this.#isStart = false;
    const established = continued.filter(({ stage }) => stage === "ready").length;
    const codes = inventory.snapshot().flatMap(({ conditions }) => conditions.map(({ code }) => code));
    log.info("recovered", {
      established,
      halfDone: continued.length - established,
      contradicting: codes.filter((code) => code === "contradicts-journal" || code === "unexplained-grant").length,
      missing: codes.filter((code) => code === "netdev-missing").length,
      late: [...journal.vfs.keys()].filter((address) => !inventory.get(address)).length,
    });
    return continued;
  }

  /** Reconciles from now on, beginning with a pass at once. Returns how to stop; a repair that is under way is waited for. */
  follow(running: RunningNode): () => Promise<void> {
    const { node, journal, uevents } = this.#options;
    this.#actions.follow(running);
    const stops = [
      uevents.subscribe((event) => this.#onUevent(event)),
      node.inventory.onChange(({ vfs }) => this.#settle(vfs)),
    ];
    this.#settle(journal.vfs.keys()); // What came since the start.
    this.#serially(() => this.#passOverAll());
    return async () => {
      this.#isClosed = true;
      for (const stop of stops) stop();
      for (const timer of Object.values(this.#timers)) timer.cancel();
      await this.#running;
    };
  }

  /** The journal has a VF that no connection holds: no client gets it before the two have been compared. */
  #settle(addresses: Iterable<PciAddress>): void {
    const { node, journal } = this.#options;
    for (const address of addresses) {
      const entry = journal.vfs.get(address);
      const record = entry && node.inventory.get(address);
      if (!record || record.connectionId !== undefined || isSettled(record)) continue;
      // At once: the next call may want it, and kubelet may be offered it.
      node.inventory.raise(address, { code: "unsettled", connectionId: entry.connectionId });
      void this.#reconcile(address, { isHeard: true });
    }
  }

  /** Most events of network devices are our own moves: only VFs whose change is awaited are observed. */
  #onUevent({ action, subsystem, devpath }: Uevent): void {
    const { inventory } = this.#options.node;
    if (action === "lost") this.#soon(SETTLE_MS, ...inventory.snapshot().map(({ address }) => address));
    if (subsystem !== "net" && subsystem !== "pci") return;
    for (const part of devpath.split("/")) {
      if (isPciAddress(part) && this.#isAwaited(part)) this.#soon(SETTLE_MS, part);
    }
  }

  #isAwaited(address: PciAddress): boolean {
    const { node, journal } = this.#options;
    const record = node.inventory.get(address);
    if (!record) return false;
    if (conditionOf(record, "repair-failed")) return this.#repairs.isAwaited(record);
    if (conditionOf(record, "netdev-missing") || conditionOf(record, "pending-netns")) return true;
    return journal.vfs.has(address) && record.connectionId === undefined;
  }

  #serially(pass: () => Promise<void>): void {
    this.#running = this.#running.then(pass);
  }

  #soon(delayMs: number, ...addresses: readonly PciAddress[]): void {
    for (const address of addresses) this.#todo.add(address);
    if (this.#isClosed || this.#timers.soon) return;
    this.#timers.soon = this.#options.clock.after(delayMs, () => {
      delete this.#timers.soon;
      this.#serially(() => this.#passOver([...this.#todo]));
    });
  }

  async #passOverAll(): Promise<void> {
    const { node, clock, intervalMs } = this.#options;
    const all = node.inventory.snapshot().map(({ address }) => address);
    const ended = (outcome: (typeof outcomes)[number], took: number) =>
      this.#repairs.metrics.passes.observe({ outcome }, took);
    await timed(clock, ended, () => this.#passOver(all));
    for (const gone of await this.#gone.look()) {
      await this.#actions.forget(gone.address, gone.connectionId);
      this.#repairs.done("forget", gone.address, { connection: gone.connectionId });
    }
    if (this.#isClosed) return;
    this.#timers.next = clock.after(intervalMs, () => this.#serially(() => this.#passOverAll()));
  }

  /** One after the other: nothing waits for it, and the files are read on threads that others need. */
  async #passOver(addresses: readonly PciAddress[]): Promise<void> {
    for (const address of addresses) {
      if (this.#isClosed) return;
      await this.#reconcile(address, { isHeard: this.#todo.delete(address) });
    }
  }

  #reconcile(address: PciAddress, { isHeard }: { readonly isHeard: boolean }): Promise<void> {
    return this.#queue.run(address, async () => {
      const { node, log } = this.#options;
      const before = node.inventory.get(address);
      if (!before) return;
      try {
        const subject = await this.#observe(address);
        const { record } = subject;
        // What a Request or a Close has changed meanwhile is theirs.
        if (!record || record.state !== before.state || record.connectionId !== before.connectionId) return;
        await this.#act(decide(subject), { ...subject, isHeard });
      } catch (error) {
        log.debug("vf-not-observed", { vf: address, error: String(error) });
      }
    });
  }

  async #observe(address: PciAddress): Promise<Observed> {
    const { node, journal, access } = this.#options;
    const observing = node.binder.observeVf(address);
    // At the start what cannot be read is taken for the worst: it is compared again at once.
    const observed = await (this.#isStart ? observing.catch(() => UNREADABLE) : observing);
    const before = node.inventory.get(address);
    const drifted = before !== undefined && observed.hasNetdev && (await this.#hasDrifted(before));
    const entry = journal.vfs.get(address);
    return {
      address,
      record: node.inventory.get(address),
      observed,
      hasDrifted: drifted,
      entry,
      connection: entry && journal.left.get(entry.connectionId),
      isStart: this.#isStart,
      canRevoke: !(access instanceof Error),
    };
  }

  async #hasDrifted(record: VfRecord): Promise<boolean> {
    const { node, clock, intervalMs } = this.#options;
    const restored = conditionOf(record, "recently-restored");
    if (!restored || record.driver !== record.kernelDriver) return false;
    if (clock.monotonicMs() - restored.sinceMs < DRIFT_INTERVALS * intervalMs) {
      return await hasDrifted(this.#options, record, restored.before);
    }
    node.inventory.clear(record.address, restored);
    return false;
  }

  /** Answers with the connection that is continued. */
  async #act(decision: Decision, subject: Observed & { readonly isHeard: boolean }): Promise<JournalEntry | undefined> {
    const { inventory } = this.#options.node;
    const { address, record, isHeard } = subject;
    if (!record || !isMismatch(record, subject)) inventory.clear(address, "mismatch");
    if (!subject.entry) inventory.clear(address, "unsettled"); // it may have been forgotten meanwhile
    if (subject.observed.hasNetdev) inventory.clear(address, "netdev-unseen");
    if (decision.kind === "leave") inventory.clear(address, "repair-failed");
    switch (decision.kind) {
      case "leave":
        return undefined;
      case "observe-again":
        if (decision.as === "netdev-unseen") inventory.raise(address, { code: decision.as });
        else {
          inventory.raise(address, { code: decision.as, isRescanned: false });
          this.#soon(MISMATCH_MS, address);
        }
        return undefined;
      case "await":
      case "adopt":
      case "contradiction":
        return await this.#actions.settle(decision, subject);
      case "repair":
        // What was heard during a try that failed is its own doing.
        if (await this.#repairs.hasFailed(decision.repair, subject, isHeard)) this.#todo.delete(address);
        return undefined;
    }
  }
}

/** Whether it was compared with the journal, or is being, or is being restored. */
function isSettled(record: VfRecord): boolean {
  const codes = ["unsettled", "contradicts-journal", "unexplained-grant", "drifted"] as const;
  return codes.some((code) => conditionOf(record, code) !== undefined);
}
