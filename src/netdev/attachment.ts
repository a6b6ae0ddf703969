import type { Link, LinkPlace, Netns } from "../kernel/index.ts";
import type { Log } from "../telemetry/index.ts";
import { applyDesired } from "./apply.ts";
import { type AttachedVf, VfBeneath } from "./apply-vf.ts";
import type { Change, Difference } from "./change.ts";
import type { DesiredNetdev } from "./desired.ts";
import { NetdevError } from "./error.ts";
import type { HostLinks } from "./host-links.ts";
import { linkSigns } from "./link-signs.ts";
import { checkNameFree, findInClient, type LinkIdentity, moveIn } from "./move.ts";
import type { Owned } from "./owned.ts";
import { planChanges } from "./plan.ts";
import { inSession, readAround, readOwnTables } from "./read.ts";
import { type NotRestored, restoreToHost } from "./restore-to-host.ts";
import { Patience } from "./transient.ts";
import { type VfIdentity, verifiedLink } from "./verify-link.ts";
import { awaitInHost, isVanished, type VfLink } from "./vf-link.ts";
import { NO_MAC, type VfSettings } from "./vf-settings-through-pf.ts";

/** All that must be known to take a link back, also by another process: plain data, to be kept in a journal. */
export interface AttachmentState extends LinkIdentity {
  readonly owned: Owned;
  /** What the PF held before we changed it. */
  readonly vfBefore: VfSettings;
}

/** The way in ends with its Request; this is the limit of a Request. */
const WAY_IN_LIMIT_MS = 60_000;
/** The way back is tried again by the caller: docs/decisions/033. */
const WAY_BACK_LIMIT_MS = 10_000;
/** So often a link may go and come back on its way in. */
const RETURNS = 10;

/** What an attachment needs for its whole life. */
export interface AttachmentParts {
  readonly links: HostLinks;
  /** Stays the caller's, open as long as the attachment is used; undefined when the namespace is known to be dead. */
  readonly client: Netns | undefined;
  readonly state: AttachmentState;
  /** PCI address of the VF whose link it is: no other is ever written to. */
  readonly address: string;
  readonly vf: AttachedVf;
  /** How a link is found that goes and comes back. */
  readonly vfLink: VfLink;
  readonly log: Log;
  /** Called before each step that the state does not yet have; the step waits for it. */
  readonly record?: ((state: AttachmentState) => Promise<void>) | undefined;
}

/** What one way in is for. */
interface WayIn {
  readonly host: LinkPlace;
  readonly client: LinkPlace;
  readonly desired: DesiredNetdev;
  readonly signal?: AbortSignal | undefined;
  readonly patience: Patience;
}

/** A link of the host that is in a client's namespace, or on its way. */
export class NetdevAttachment {
  readonly #parts: AttachmentParts;
  readonly #of: VfIdentity;
  readonly #vf: VfBeneath;
  #state: AttachmentState;
  #isRestored = false;
  /** It went while we worked on it, and was not back when the time was up. */
  #isAway = false;

  constructor(parts: AttachmentParts) {
    this.#parts = parts;
    const { address, links, vf, log } = parts;
    this.#of = { address, linkOwnerOf: links.linkOwnerOf };
    this.#state = parts.state;
    this.#vf = new VfBeneath({
      vf,
      remember: (before) => this.#remember({ vfBefore: { ...before, ...this.#state.vfBefore } }),
      wasOwnChoice: async (mac) => {
        const { vfBefore } = this.#state;
        if (vfBefore.mac === mac) await this.#remember({ vfBefore: { ...vfBefore, mac: NO_MAC } });
      },
      log,
      clock: links.clock,
    });
  }

  get state(): AttachmentState {
    return this.#state;
  }

  /** Settings, move, name, addresses: the whole way in. Its caller detaches when it fails. */
  enter(desired: DesiredNetdev, signal?: AbortSignal): Promise<void> {
    return this.#inTurn(async (host, client) => {
      if (!client) throw new NetdevError({ kind: "gone", link: desired.name, where: "a namespace that has died" });
      await checkNameFree(client, desired.name);
      await this.#remember({});
      await this.#patiently([host, client], { limitMs: WAY_IN_LIMIT_MS, signal }, (patience) =>
        this.#enterFrom({ host, client, desired, signal, patience }),
      );
    });
  }

  /** From wherever the VF's link comes back in the host, where its driver makes another one on the way. */
  async #enterFrom(work: WayIn): Promise<void> {
    for (let left = RETURNS; ; left--) {
      try {
        return await this.#enterOnce(work);
      } catch (error) {
        if (left === 0 || !isVanished(error) || !(await this.#meetAgain(work.host, work.patience))) throw error;
      }
    }
  }

  async #enterOnce(work: WayIn): Promise<void> {
    const { original } = this.#state;
    const { index, name } = original;
    const { host, client, desired, signal, patience } = work;
    signal?.throwIfAborted();
    // Again: other links may have come and gone while this one waited for its turn.
    await patience.run("ask whose the link is", () => verifiedLink(host, index, this.#of));
    // Down: no frame leaves the VF before its address, its VLAN and its limits are in force.
    if (original.up) await patience.run("set the link down", () => host.rtnl.setLink(index, { up: false }));
    await this.#vf.apply(desired, { session: host, ifindex: index, isFirst: true, patience });
    signal?.throwIfAborted();
    const clientIndex = await patience.run("move the link", () => moveIn(host, client, this.#state, this.#of));
    await this.#remember({ clientIndex });
    await this.#apply(work, { first: true });
    this.#parts.log.info("netdev-attached", { link: name, name: desired.name, clientIndex });
  }

  /** Waits for the VF's link in the host. False where none will come. */
  async #meetAgain(host: LinkPlace, patience: Patience): Promise<boolean> {
    const { vfLink, log } = this.#parts;
    this.#isAway = true;
    const link = await awaitInHost(host, this.#state, { of: this.#of, vfLink, patience });
    this.#isAway = false;
    if (!link) return false;
    const { original } = this.#state;
    log.info("netdev-returned", { link: original.name, was: original.index, index: link.index, name: link.name });
    await this.#remember({ original: { ...original, index: link.index }, clientIndex: undefined });
    return true;
  }

  /**
   * Makes the actual state the desired one; writes nothing when it is.
   * @throws {NetdevError | KernelError} with the link in between: call again, or detach.
   */
  update(desired: DesiredNetdev, signal?: AbortSignal): Promise<void> {
    return this.#inClient(async (client) => {
      const link = client && (await findInClient(client, this.#state, this.#of));
      const gone = new NetdevError({ kind: "gone", link: this.#state.name, where: "the client's namespace" });
      try {
        if (!link) throw gone;
        await this.#updateThere(client, link, { desired, signal });
      } catch (error) {
        if (!client || !isVanished(error)) throw error;
        // Its driver has made it again, in the host. Where nothing of ours can have made it go, it is there by now.
        if (!link && (await this.#parts.vfLink.index()) === undefined) throw error;
        await this.#inHost((host) =>
          this.#patiently([host, client], { limitMs: WAY_IN_LIMIT_MS, signal }, async (patience) => {
            if (!(await this.#meetAgain(host, patience))) throw error;
            await this.#enterFrom({ host, client, desired, signal, patience });
          }),
        );
      }
    });
  }

  async #updateThere(client: LinkPlace, link: Link, work: Pick<WayIn, "desired" | "signal">): Promise<void> {
    const { desired, signal } = work;
    if (link.name !== desired.name) await checkNameFree(client, desired.name);
    const { name, clientIndex } = this.#state;
    if (name !== desired.name || clientIndex !== link.index) {
      await this.#remember({ name: desired.name, clientIndex: link.index });
    }
    await this.#patiently([client], { limitMs: WAY_IN_LIMIT_MS, signal }, async (patience) => {
      await this.#vf.apply(desired, { session: client, ifindex: link.index, isFirst: false, patience });
      await this.#apply({ ...work, client, patience }, { first: false });
    });
  }

  /** What is not as desired, by reading only. Empty: an unchanged refresh has nothing to do. */
  differences(desired: DesiredNetdev, signal?: AbortSignal): Promise<readonly Difference[]> {
    return this.#inClient(async (client) => {
      const link = client && (await findInClient(client, this.#state, this.#of));
      const actual = link && (await readAround(client, link, desired));
      if (!client || !actual) return [{ kind: "not-there", link: desired.name }];
      const { owned, original } = this.#state;
      const changes = planChanges({ actual, desired, owned, originalMtu: original.mtu });
      const settings = await this.#patiently([client], { limitMs: WAY_IN_LIMIT_MS, signal }, (patience) =>
        this.#vf.differing(desired, patience),
      );
      return [...changes, ...settings.map((setting) => ({ kind: "vf", setting }) as const)];
    });
  }

  /**
   * Returns the link to the host and restores it. Answers with what could not be restored, and can be called again for that;
   * a VF with anything left must not be given to another client.
   */
  async detach(): Promise<readonly NotRestored[]> {
    if (this.#isRestored) return [];
    return await this.#inTurn(async (host, client) => {
      const { links, vf, vfLink, log } = this.#parts;
      const { owned, original, name, vfBefore } = this.#state;
      const what = { identity: this.#state, of: this.#of, owned, vfLink, isAway: this.#isAway };
      const places = client ? [host, client] : [host];
      const left = await this.#patiently(places, { limitMs: WAY_BACK_LIMIT_MS }, (patience) =>
        restoreToHost({ host, client, ...what, vf: { ...vf, before: vfBefore }, patience, clock: links.clock }),
      );
      this.#isRestored = left.length === 0;
      for (const one of left) log.warn("netdev-not-restored", { link: original.name, ...one });
      if (this.#isRestored) log.info("netdev-detached", { link: original.name, name });
      return left;
    });
  }

  /** Work on both sides. */
  #inTurn<T>(work: (host: LinkPlace, client: LinkPlace | undefined) => Promise<T>): Promise<T> {
    return this.#inClient((client) => this.#inHost((host) => work(host, client)));
  }

  #inHost<T>(work: (host: LinkPlace) => Promise<T>): Promise<T> {
    const { netns, openRtnl } = this.#parts.links;
    return inSession(netns, work, openRtnl);
  }

  /** Work that does not touch the host's namespace. */
  #inClient<T>(work: (client: LinkPlace | undefined) => Promise<T>): Promise<T> {
    const { client, links } = this.#parts;
    const key = client ? `${client.id.dev}:${client.id.ino}` : `no namespace, link ${this.#state.temporaryName}`;
    return links.turns.run(key, () => (client ? inSession(client, work, links.openRtnl) : work(undefined)));
  }

  /** Waits for drivers meanwhile, woken by news of the link in these places. */
  async #patiently<T>(
    places: readonly LinkPlace[],
    { limitMs, signal }: { readonly limitMs: number; readonly signal?: AbortSignal | undefined },
    work: (patience: Patience) => Promise<T>,
  ): Promise<T> {
    const { log, links } = this.#parts;
    const { name, parentDevice } = this.#state.original;
    const { clock } = links;
    const concerns = (link: Link) => parentDevice === undefined || link.parentDevice === parentDevice;
    const signs = linkSigns(places, { clock, concerns });
    try {
      return await work(new Patience({ link: name, clock, log, limitMs, signal, nextSign: signs.next }));
    } finally {
      signs.close();
    }
  }

  async #apply(work: Omit<WayIn, "host">, { first }: { readonly first: boolean }): Promise<void> {
    const { clientIndex: ifindex, original } = this.#state;
    if (ifindex === undefined) throw new Error(`${original.name} is applied before it is in the namespace`);
    const { log, links } = this.#parts;
    const [session, { clock }] = [work.client, links];
    const kept = { owned: () => this.#state.owned, own: (changes: readonly Change[]) => this.#own(session, changes) };
    await applyDesired({ ...work, ...kept, session, ifindex, originalMtu: original.mtu, first, log, clock });
  }

  /** Remembers what the kernel's marks will not say. */
  async #own(client: LinkPlace, changes: readonly Change[]): Promise<void> {
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
}
