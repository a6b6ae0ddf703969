import { type Clock, KeyedQueue, type Random } from "../async/index.ts";
import type { Link, Netns, OpenRtnl } from "../kernel/index.ts";
import type { Log } from "../telemetry/index.ts";
import { applyWanted } from "./apply.ts";
import { type AttachedVf, applyVf } from "./apply-vf.ts";
import type { Change, Difference } from "./change.ts";
import type { WantedNetdev } from "./desired.ts";
import { NetdevError } from "./error.ts";
import { linkSigns } from "./link-signs.ts";
import { checkNameFree, findInClient, type LinkIdentity, moveIn } from "./move.ts";
import type { Owned } from "./owned.ts";
import { planChanges } from "./plan.ts";
import { inSession, readAround, readOwnTables, type Session } from "./read.ts";
import { type NotRestored, restoreToHost } from "./restore-to-host.ts";
import { Patience } from "./transient.ts";
import { type VfIdentity, verifiedLink } from "./verify-link.ts";
import { awaitInHost, isVanished, type VfLink } from "./vf-link.ts";
import { differingSettings, NO_MAC, type VfSettings } from "./vf-settings-through-pf.ts";

/** All that must be known to take a link back, also by another process: plain data, to be kept in a journal. */
export interface AttachmentState extends LinkIdentity {
  readonly owned: Owned;
  /** What the PF held before we changed it. */
  readonly vfBefore: VfSettings;
}

/** The way in ends with its Request; this is the limit of a Request. */
const WAY_IN_LIMIT_MS = 60_000;
/** The way back is tried again by whoever asked for it: docs/decisions/033. */
const WAY_BACK_LIMIT_MS = 10_000;
/** So often a link may go and come back on its way in. */
const RETURNS = 10;

/** What an attachment needs for its whole life. */
export interface AttachmentParts {
  readonly host: Netns;
  /** Stays the caller's, open as long as the attachment is used; undefined when the namespace is known to be dead. */
  readonly client: Netns | undefined;
  readonly state: AttachmentState;
  /** Whose link it is: no other is ever written to. */
  readonly of: VfIdentity;
  readonly vf?: AttachedVf | undefined;
  /** How a link is found that goes and comes back. Without it such a link is gone. */
  readonly vfLink?: VfLink | undefined;
  readonly openRtnl: OpenRtnl;
  readonly log: Log;
  readonly clock: Clock;
  readonly random: Random;
  /** Told before each step that the state does not yet tell of; the step waits for it. */
  readonly record?: ((state: AttachmentState) => Promise<void>) | undefined;
}

// A namespace is one thing for the whole process, whoever holds a handle of it: two links that enter it at once would
// pick the same free routing table.
const turns = new KeyedQueue<string>();

/** What one way in is for. */
interface WayIn {
  readonly wanted: WantedNetdev;
  readonly signal?: AbortSignal | undefined;
  readonly patience: Patience;
}

/** A link of the host that is in a client's namespace, or on its way. */
export class NetdevAttachment {
  readonly #parts: AttachmentParts;
  #state: AttachmentState;
  #home = false;
  /** It went while we worked on it, and was not back when the time was up. */
  #isAway = false;
  #kernelWrites = 0;
  /** Settings that the driver can tell but not set: asked for once per process, no difference afterwards. */
  readonly #unsupported = new Set<keyof VfSettings>();

  constructor(parts: AttachmentParts) {
    this.#parts = parts;
    this.#state = parts.state;
  }

  get state(): AttachmentState {
    return this.#state;
  }

  /** Requests so far that could change something in the kernel, those of the PF's port not among them. */
  get kernelWrites(): number {
    return this.#kernelWrites;
  }

  /** Settings, move, name, addresses: the whole way in. Its caller detaches when it fails. */
  enter(wanted: WantedNetdev, signal?: AbortSignal): Promise<void> {
    return this.#inTurn(async (host, client) => {
      if (!client) throw new NetdevError({ kind: "gone", link: wanted.name, where: "a namespace that has died" });
      await checkNameFree(client, wanted.name);
      await this.#remember({});
      await this.#patiently([host, client], { limitMs: WAY_IN_LIMIT_MS, signal }, (patience) =>
        this.#enterFrom({ host, client }, { wanted, signal, patience }),
      );
    });
  }

  /** From wherever the VF's link comes back in the host, where its driver makes another one on the way. */
  async #enterFrom(places: { readonly host: Session; readonly client: Session }, work: WayIn): Promise<void> {
    for (let left = RETURNS; ; left--) {
      try {
        return await this.#enterOnce(places, work);
      } catch (error) {
        if (left === 0 || !isVanished(error) || !(await this.#meetAgain(places.host, work.patience))) throw error;
      }
    }
  }

  async #enterOnce({ host, client }: { readonly host: Session; readonly client: Session }, work: WayIn): Promise<void> {
    const { original } = this.#state;
    const { index, name } = original;
    const { wanted, signal, patience } = work;
    signal?.throwIfAborted();
    // Again: other links may have come and gone while this one waited for its turn.
    await patience.run("ask whose the link is", () => verifiedLink(host, index, this.#parts.of));
    // Down: no frame leaves the VF before its address, its VLAN and its limits stand.
    if (original.up) await patience.run("set the link down", () => host.rtnl.setLink(index, { up: false }));
    await this.#applyVf(host, { ifindex: index, isFirst: true }, work);
    signal?.throwIfAborted();
    const clientIndex = await patience.run("move the link", () => moveIn(host, client, this.#state, this.#parts.of));
    await this.#remember({ clientIndex });
    await this.#apply(client, work, { first: true });
    this.#parts.log.info("netdev-attached", { link: name, name: wanted.name, clientIndex });
  }

  /** Waits for the VF's link in the host. False where none will come. */
  async #meetAgain(host: Session, patience: Patience): Promise<boolean> {
    const { of, vfLink, log } = this.#parts;
    if (!vfLink) return false;
    this.#isAway = true;
    const link = await awaitInHost(host, this.#state, { of, vfLink, patience });
    this.#isAway = false;
    if (!link) return false;
    const { original } = this.#state;
    log.info("netdev-came-back", { link: original.name, was: original.index, index: link.index, name: link.name });
    await this.#remember({ original: { ...original, index: link.index }, clientIndex: undefined });
    return true;
  }

  /**
   * Brings what stands to what is wanted now; writes nothing when it stands.
   * @throws {NetdevError | KernelError} with the link in between: call again, or detach.
   */
  update(wanted: WantedNetdev, signal?: AbortSignal): Promise<void> {
    return this.#inClient(async (client) => {
      const link = client && (await findInClient(client, this.#state, this.#parts.of));
      const gone = new NetdevError({ kind: "gone", link: this.#state.name, where: "the client's namespace" });
      try {
        if (!link) throw gone;
        await this.#updateThere(client, link, { wanted, signal });
      } catch (error) {
        if (!client || !isVanished(error)) throw error;
        // Its driver has made it anew, in the host. Where nothing of ours can have made it go, it is there by now.
        const { vfLink } = this.#parts;
        if (!vfLink || (!link && (await vfLink.index()) === undefined)) throw error;
        await this.#counted(this.#parts.host, (host) =>
          this.#patiently([host, client], { limitMs: WAY_IN_LIMIT_MS, signal }, async (patience) => {
            if (!(await this.#meetAgain(host, patience))) throw error;
            await this.#enterFrom({ host, client }, { wanted, signal, patience });
          }),
        );
      }
    });
  }

  async #updateThere(client: Session, link: Link, work: Omit<WayIn, "patience">): Promise<void> {
    const { wanted, signal } = work;
    if (link.name !== wanted.name) await checkNameFree(client, wanted.name);
    const { name, clientIndex } = this.#state;
    if (name !== wanted.name || clientIndex !== link.index) {
      await this.#remember({ name: wanted.name, clientIndex: link.index });
    }
    await this.#patiently([client], { limitMs: WAY_IN_LIMIT_MS, signal }, async (patience) => {
      await this.#applyVf(client, { ifindex: link.index, isFirst: false }, { ...work, patience });
      await this.#apply(client, { ...work, patience }, { first: false });
    });
  }

  /** What is not as wanted, by reading only. Empty: an unchanged refresh has nothing to do. */
  differences(wanted: WantedNetdev, signal?: AbortSignal): Promise<readonly Difference[]> {
    return this.#inClient(async (client) => {
      const link = client && (await findInClient(client, this.#state, this.#parts.of));
      const standing = link && (await readAround(client, link, wanted));
      if (!client || !standing) return [{ kind: "not-there", link: wanted.name }];
      const { owned, original } = this.#state;
      const changes = planChanges({ standing, wanted, owned, originalMtu: original.mtu });
      const settings = await this.#differingSettings(client, { wanted, signal });
      const known = settings.filter((setting) => !this.#unsupported.has(setting));
      return [...changes, ...known.map((setting) => ({ kind: "vf", setting }) as const)];
    });
  }

  /**
   * Brings the link home and makes it what it was. Tells what could not be restored, and can be called again for that;
   * a VF with anything left must not be given to another client.
   */
  async detach(): Promise<readonly NotRestored[]> {
    if (this.#home) return [];
    return await this.#inTurn(async (host, client) => {
      const { port, index } = this.#parts.vf ?? {};
      const vf = port && index !== undefined ? { port, index, before: this.#state.vfBefore } : undefined;
      const { clock, log, of, vfLink } = this.#parts;
      const { owned } = this.#state;
      const what = { identity: this.#state, of, owned, vf, vfLink, isAway: this.#isAway };
      const places = client ? [host, client] : [host];
      const left = await this.#patiently(places, { limitMs: WAY_BACK_LIMIT_MS }, (patience) =>
        restoreToHost({ host, client, ...what, patience, clock }),
      );
      this.#home = left.length === 0;
      for (const { what, error } of left)
        log.warn("netdev-not-restored", { link: this.#state.original.name, what, error });
      if (this.#home) log.info("netdev-detached", { link: this.#state.original.name, name: this.#state.name });
      return left;
    });
  }

  /** Work on both sides. */
  #inTurn<T>(work: (host: Session, client: Session | undefined) => Promise<T>): Promise<T> {
    return this.#inClient((client) => this.#counted(this.#parts.host, (host) => work(host, client)));
  }

  /** Work that does not touch the host's namespace. */
  #inClient<T>(work: (client: Session | undefined) => Promise<T>): Promise<T> {
    const { client } = this.#parts;
    const key = client ? `${client.id.dev}:${client.id.ino}` : `no namespace, link ${this.#state.temporaryName}`;
    return turns.run(key, () => (client ? this.#counted(client, work) : work(undefined)));
  }

  #counted<T>(netns: Netns, work: (session: Session) => Promise<T>): Promise<T> {
    const counted = async (session: Session) => {
      try {
        return await work(session);
      } finally {
        this.#kernelWrites += session.rtnl.counts.writes;
      }
    };
    return inSession(netns, counted, this.#parts.openRtnl);
  }

  /** Waits for drivers meanwhile, woken by news of the link in these places. */
  async #patiently<T>(
    places: readonly Session[],
    { limitMs, signal }: { readonly limitMs: number; readonly signal?: AbortSignal | undefined },
    work: (patience: Patience) => Promise<T>,
  ): Promise<T> {
    const { clock, log } = this.#parts;
    const { name, parentDevice } = this.#state.original;
    const signs = linkSigns(places, {
      clock,
      concerns: (link) => parentDevice === undefined || link.parentDevice === parentDevice,
    });
    try {
      return await work(new Patience({ link: name, clock, log, limitMs, signal, nextSign: signs.next }));
    } finally {
      signs.close();
    }
  }

  async #apply(client: Session, { wanted, signal, patience }: WayIn, { first }: { first: boolean }): Promise<void> {
    const { clientIndex, original } = this.#state;
    if (clientIndex === undefined) throw new Error(`${original.name} is applied before it is in the namespace`);
    const { log, clock } = this.#parts;
    await applyWanted({
      session: client,
      ifindex: clientIndex,
      wanted,
      originalMtu: original.mtu,
      first,
      signal,
      owned: () => this.#state.owned,
      own: (changes) => this.#own(client, changes),
      patience,
      log,
      clock,
    });
  }

  /** Remembers what the kernel's marks will not tell. */
  async #own(client: Session, changes: readonly Change[]): Promise<void> {
    const { owned, clientIndex } = this.#state;
    const addresses = new Set(owned.addresses);
    const tables = new Set(await readOwnTables(client, clientIndex ?? 0, owned));
    let { mtu } = owned;
    for (const change of changes) {
      if (change.kind === "add-address") addresses.add(`${change.address.address}/${change.address.prefixLength}`);
      if (change.kind === "add-rule") tables.add(change.rule.table);
      if (change.kind === "mtu") mtu = change.mtu !== this.#state.original.mtu;
    }
    await this.#remember({ owned: { addresses: [...addresses], tables: [...tables], mtu } });
  }

  async #remember(news: Partial<AttachmentState>): Promise<void> {
    this.#state = { ...this.#state, ...news };
    await this.#parts.record?.(this.#state);
  }

  async #differingSettings(
    client: Session,
    { wanted, signal }: Omit<WayIn, "patience">,
  ): Promise<(keyof VfSettings)[]> {
    const { vf } = this.#parts;
    if (!vf) return [];
    const read = (patience: Patience) =>
      patience.run(`read the settings of VF ${vf.index}`, () => vf.port.read(vf.index));
    const standing = await this.#patiently([client], { limitMs: WAY_IN_LIMIT_MS, signal }, read);
    return differingSettings(standing, this.#vfWanted(wanted));
  }

  #vfWanted(wanted: WantedNetdev): VfSettings {
    return { ...this.#parts.vf?.settings, mac: wanted.mac, vlan: wanted.vlan };
  }

  async #applyVf(
    session: Session,
    link: { readonly ifindex: number; readonly isFirst: boolean },
    { wanted, patience }: WayIn,
  ): Promise<void> {
    const { vf, clock, log } = this.#parts;
    await applyVf({
      session,
      ...link,
      mac: wanted.mac,
      vf,
      wanted: this.#vfWanted(wanted),
      remember: (before) => this.#remember({ vfBefore: { ...before, ...this.#state.vfBefore } }),
      wasOwnChoice: async (mac) => {
        const { vfBefore } = this.#state;
        if (vfBefore.mac === mac) await this.#remember({ vfBefore: { ...vfBefore, mac: NO_MAC } });
      },
      isUnsupported: (setting) => void this.#unsupported.add(setting),
      patience,
      log,
      clock,
    });
  }
}
