// Makes journal, inventory and node agree: before anything is served, then every few seconds and when the kernel says that a VF
// which concerns us has changed. What a running client has is only observed. docs/decisions/016 and 041.
import { KeyedQueue, LimitedQueue, type Timer } from "../async/index.ts";
import { conditionOf, type VfRecord } from "../inventory/index.ts";
import type { UeventSource } from "../kernel/index.ts";
import { othersNames } from "../mechanisms/index.ts";
import type { JournalEntry } from "../nsm/index.ts";
import type { PciAddress } from "../pci/index.ts";
import { type outcomes, timed } from "../telemetry/index.ts";
import { Actions, type ActionsOptions, type RunningNode } from "./actions.ts";
import { AwaitedVfs } from "./awaited-vfs.ts";
import { decide, isMismatch, isSettled, type Subject, waitsForDriver } from "./decide.ts";
import type { Decision } from "./decision.ts";
import { GoneVfs } from "./gone-vfs.ts";
import { Repairs } from "./repairs.ts";
import { hasDrifted } from "./restore.ts";
import { TakenNames } from "./taken-names.ts";

export interface ReconcilerOptions extends ActionsOptions {
  readonly uevents: UeventSource;
  /** Between the end of one pass over everything and the next. */
  readonly intervalMs: number;
}

/** A VF that is restored brings several events. */
const SETTLE_MS = 20;
/** What is only so for a moment is work under way. */
const MISMATCH_MS = 200;
/** So long after it was restored, a write that came late can have changed a VF. */
const DRIFT_INTERVALS = 12;

/** A stop waits no longer for a driver that makes a network device: the next start continues. */
const STOP_GRACE_MS = 2_000;

/** Each occupies a thread while its driver works; a write that waits long for the kernel's locks would pass for one that hangs. */
const CLEANED_AT_ONCE = 8;

const UNREADABLE = { isPresent: false, driver: undefined, iommuGroup: undefined, hasNetdev: false } as const;

/** What is known of a VF, by its address. */
type Observed = Subject & { readonly address: PciAddress };

/** `start()`, once; when the service is there, `follow()`. */
export class Reconciler {
  readonly #options: ReconcilerOptions;
  readonly #actions: Actions;
  readonly #repairs: Repairs;
  readonly #awaited: AwaitedVfs;
  readonly #gone: GoneVfs;
  readonly #takenNames: TakenNames;
  readonly #queue = new KeyedQueue<PciAddress>();
  readonly #cleaningQueue = new LimitedQueue(CLEANED_AT_ONCE);
  /** VFs that are being cleaned after a client or wait for that, each until it is done or has failed. */
  readonly #cleaning = new Map<PciAddress, Promise<unknown>>();
  /** VFs to be observed soon. */
  readonly #todo = new Set<PciAddress>();
  readonly #stopping = new AbortController();
  #timers: { next?: Timer; soon?: Timer } = {};
  #running: Promise<void> = Promise.resolve();
  #isStart = true;
  #isClosed = false;

  constructor(options: ReconcilerOptions) {
    this.#options = options;
    this.#actions = new Actions({ ...options, stopping: this.#stopping.signal });
    this.#repairs = new Repairs({ ...options, actions: this.#actions });
    this.#awaited = new AwaitedVfs(options, this.#repairs);
    this.#gone = new GoneVfs(options);
    this.#takenNames = new TakenNames(options.links, () => this.#soon(SETTLE_MS, ...this.#awaited.underOtherNames));
  }

  /**
   * The first pass: compares the journal with the node, and changes nothing of a VF. Answers with the connections that are continued;
   * waits for no device. What comes later is settled when it comes.
   */
  async start(): Promise<readonly JournalEntry[]> {
    const { node, journal, log } = this.#options;
    const { inventory } = node;
    await this.#actions.leaveFound();
    this.#actions.adoptGrants();
    this.#actions.forgetOtherBoots();
    const addresses = new Set([...journal.vfs.keys(), ...inventory.snapshot().map(({ address }) => address)]);
    const out = [...journal.vfs.values()].filter((entry) => entry.use !== "kernel" || !entry.isLeft);
    const ofVfs = new Set(out.map(({ connectionId }) => connectionId));
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
    for (const address of journal.unrestored.addresses) this.#actions.resume(address);
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

  /** Reconciles from now on, beginning with a pass at once. Returns how to stop: repairs are waited for, drivers for two seconds. */
  follow(running: RunningNode): () => Promise<void> {
    const { node, journal, uevents } = this.#options;
    this.#actions.follow(running);
    const stops = [
      uevents.subscribe((event) => {
        const heardOf = this.#awaited.of(event);
        if (heardOf.length > 0) this.#soon(SETTLE_MS, ...heardOf);
      }),
      node.inventory.onChange(({ vfs }) => {
        this.#settle(vfs);
        void this.#gone.forgetDestroyed(vfs);
      }),
    ];
    this.#settle(journal.vfs.keys()); // What came since the start.
    this.#serially(() => this.#passOverAll());
    return async () => {
      this.#isClosed = true;
      for (const stop of stops) stop();
      for (const timer of Object.values(this.#timers)) timer.cancel();
      const stop = () => this.#stopping.abort(new Error("The forwarder stops; its next start continues"));
      const grace = this.#options.clock.after(STOP_GRACE_MS, stop);
      await this.#running;
      await Promise.all(this.#cleaning.values());
      grace.cancel();
      this.#takenNames.close();
    };
  }

  /** The journal has a VF that no connection holds: no client gets it before the two have been compared. */
  #settle(addresses: Iterable<PciAddress>): void {
    const { node, journal } = this.#options;
    for (const address of addresses) {
      this.#actions.resume(address);
      if (this.#awaited.isUnderOtherName(address)) this.#soon(SETTLE_MS, address); // from then on its name is listened for
      const entry = journal.vfs.get(address);
      const record = entry && node.inventory.get(address);
      if (record && record.connectionId === undefined && conditionOf(record, "being-cleaned"))
        this.#clean(address, false);
      if (!record || record.connectionId !== undefined || isSettled(record)) continue;
      // At once: the next call may want it, and kubelet may be offered it.
      node.inventory.raise(address, { code: "unsettled", connectionId: entry.connectionId });
      void this.#reconcile(address, { isHeard: true });
    }
  }

  /** Beside the passes, and eight at once: drivers take their time. A try that fails is begun again by the passes. */
  #clean(address: PciAddress, isHeard: boolean): void {
    if (this.#isClosed || this.#cleaning.has(address)) return;
    const clean = async () => this.#isClosed || (await this.#reconcile(address, { isHeard }));
    const cleaned = this.#cleaningQueue.run(clean).finally(() => this.#cleaning.delete(address));
    this.#cleaning.set(address, cleaned);
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
    for (const gone of await this.#gone.observe()) {
      await this.#actions.forget(gone.address, gone);
      this.#repairs.done("forget", gone.address, { connection: gone.connectionId });
    }
    if (this.#isClosed) return;
    this.#timers.next = clock.after(intervalMs, () => this.#serially(() => this.#passOverAll()));
  }

  /** One after the other, but for those whose driver may take long: the files are read on threads that others need. */
  async #passOver(addresses: readonly PciAddress[]): Promise<void> {
    const { node, journal } = this.#options;
    for (const address of addresses) {
      if (this.#isClosed) return;
      if (this.#cleaning.has(address)) continue;
      const isHeard = this.#todo.delete(address);
      if (waitsForDriver(node.inventory.get(address), journal.vfs.get(address))) this.#clean(address, isHeard);
      else await this.#reconcile(address, { isHeard });
    }
  }

  #reconcile(address: PciAddress, { isHeard }: { readonly isHeard: boolean }): Promise<void> {
    return this.#queue.run(address, async () => {
      const { node, log } = this.#options;
      this.#actions.resume(address); // its kernel driver may have it again
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
    const isNameFree = before !== undefined && (await this.#isNameFree(before).catch(() => false));
    // Nothing is waited for from here on: a Request may take it meanwhile, and the record would be of a free VF.
    const entry = journal.vfs.get(address);
    return {
      address,
      record: node.inventory.get(address),
      observed,
      hasDrifted: drifted,
      isNameFree,
      hasStuckWrite: node.binder.hasStuckWrite(address),
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

  async #isNameFree({ address }: VfRecord): Promise<boolean> {
    const { node, journal } = this.#options;
    const before = journal.unrestored.beforeOf(address);
    if (!before || !this.#awaited.isUnderOtherName(address)) return false;
    const { name } = before.state.original;
    if (othersNames({ journal, inventory: node.inventory }, address).isPromised(name)) return false;
    const netdev = await node.binder.netdevNow(address);
    return netdev !== undefined && (await this.#takenNames.isFree(name, netdev.ifindex));
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
      case "clean-on":
      case "contradiction":
        return await this.#actions.settle(decision, subject);
      case "repair":
        // What was heard during a try that failed is its own doing.
        if (await this.#repairs.hasFailed(decision.repair, subject, isHeard)) this.#todo.delete(address);
        return undefined;
    }
  }
}
