import { messageOf } from "../async/index.ts";
import type { Link, LinkPlace } from "../kernel/index.ts";
import { applyDesired } from "./apply.ts";
import { VfBeneath } from "./apply-vf.ts";
import type { AttachmentParts, AttachOptions as OptionsOf } from "./attachment-parts.ts";
import { type AttachmentState, freshState, stateOfOther } from "./attachment-state.ts";
import type { Change, Difference } from "./change.ts";
import type { DesiredNetdev } from "./desired.ts";
import { NetdevError } from "./error.ts";
import { leavingSettings } from "./kept-settings.ts";
import { checkNameFree, findInClient, moveIn } from "./move.ts";
import { ownedWith } from "./owned.ts";
import { planChanges } from "./plan.ts";
import { readAround, readOwnTables } from "./read.ts";
import { NOTHING_KNOWN } from "./restore-name.ts";
import { type NotRestored, restoreToHost, returnToHost } from "./restore-to-host.ts";
import type { Patience, PatienceOptions } from "./transient.ts";
import { type VfIdentity, verifiedLink } from "./verify-link.ts";
import { awaitInHost, isOtherDevice, isVanished } from "./vf-link.ts";

/** The way in ends with its Request; this is the limit of a Request. */
const WAY_IN_LIMIT_MS = 60_000;
/** The way back is tried again by the caller: docs/decisions/033. */
const WAY_BACK_LIMIT_MS = 10_000;
/** So often a link may go and come back on its way in. */
const RETURNS = 10;

export type AttachOptions = OptionsOf<NetdevAttachment>;

/** How long one piece of work waits for drivers. */
type Limit = Pick<PatienceOptions, "limitMs" | "signal">;

/** What one way in is for. */
interface WayIn extends Pick<AttachOptions, "desired" | "signal"> {
  readonly host: LinkPlace;
  readonly client: LinkPlace;
  readonly patience: Patience;
}

/**
 * The original's inject, connectioncontextkernel and ethernetcontext. Gives a link of the host to a client: its own
 * address and the settings on the PF (decision 034), move, name, addresses, routes, rules, neighbours, up. When a step fails all is undone.
 * @throws {NetdevError | KernelError} the first failure; of kind "left-behind" when the link is not what it was before.
 */
export async function attachNetdev(options: AttachOptions): Promise<NetdevAttachment> {
  const { links, address, client, ifindex, desired, before: known, vfLink, signal, keepLeft } = options;
  if (client.isSame(links.netns)) throw new NetdevError({ kind: "host-namespace" });
  const link = await links.verified(address, ifindex);
  const before = known && (await isOtherDevice(vfLink, known)) ? undefined : known;
  const fresh = { name: desired.name, random: links.random, before, device: await vfLink.device() };
  const attachment = new NetdevAttachment({ ...options, state: freshState(link, fresh) });
  try {
    await attachment.enter(desired, signal);
    return attachment;
  } catch (error) {
    const left = await attachment.detach();
    if (left.length === 0) throw error;
    keepLeft?.(attachment);
    const fault = { link: link.name, reason: messageOf(error), left: left.map(({ what }) => what) };
    throw new NetdevError({ kind: "left-behind", ...fault }, { cause: error });
  }
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
      before: () => this.#state.vfBefore,
      remember: (vfBefore) => this.#remember({ vfBefore }),
      log,
      clock: links.clock,
    });
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
    const { index, name } = this.#state.original;
    const { host, client, desired, signal, patience } = work;
    signal?.throwIfAborted();
    // Again: other links may have come and gone while this one waited for its turn.
    const { up } = await patience.run("ask whose the link is", () => this.#readKept(host));
    // Down: no frame leaves the VF before its address, its VLAN and its limits are in force.
    if (up) await patience.run("set the link down", () => host.rtnl.setLink(index, { up: false }));
    await this.#vf.apply(desired, { session: host, ifindex: index, isFirst: true, patience });
    signal?.throwIfAborted();
    this.#parts.onLeaving?.();
    const clientIndex = await patience.run("move the link", () => moveIn(host, client, this.#state, this.#of));
    await this.#remember({ clientIndex });
    await this.#apply(work, { first: true });
    this.#parts.log.info("netdev-attached", { link: name, name: desired.name, clientIndex });
  }

  /** As the host has it, untouched, or is to have it again; it goes to the journal with what the PF has. */
  async #readKept(host: LinkPlace): Promise<Link> {
    const { links, address } = this.#parts;
    const link = await verifiedLink(host, this.#state.original.index, this.#of);
    const { kept: _former, ...state } = this.#state;
    const kept = await leavingSettings({ links, host, address }, link, this.#state);
    this.#state = { ...state, ...(kept && { kept }) };
    return link;
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
    if (await isOtherDevice(vfLink, this.#state)) {
      this.#state = stateOfOther(this.#state, link, await vfLink.device());
      await this.#remember({});
    } else await this.#remember({ original: { ...original, index: link.index }, clientIndex: undefined });
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
        await this.#parts.links.inHost((host) =>
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
   * a VF with anything left must not be given to another client. With `isRenewed` its driver has made another link since, which is in
   * the host: what is in the client's namespace stays.
   */
  async detach({ isRenewed = false } = {}): Promise<readonly NotRestored[]> {
    if (this.#isRestored) return [];
    const left = await this.#back(restoreToHost, isRenewed);
    this.#isRestored = left.length === 0;
    const { original, name } = this.#state;
    if (this.#isRestored) this.#parts.log.info("netdev-detached", { link: original.name, name });
    return left;
  }

  /**
   * Takes the link out of the client's namespace and the client's settings off the PF. Answers with what resisted; all of it is for
   * the one who has the driver make another link and adopts that, to detach it.
   */
  leave(): Promise<readonly NotRestored[]> {
    return this.#back(returnToHost);
  }

  #back(way: typeof restoreToHost, isRenewed = false): Promise<readonly NotRestored[]> {
    return this.#inTurn(async (host, itsPlace) => {
      const client = isRenewed ? undefined : itsPlace;
      const { links, vf, vfLink, log, othersNames = NOTHING_KNOWN } = this.#parts;
      // It has gone with all that was set of it and of its PF's part, and what has its address is as the host has made it.
      if (await isOtherDevice(vfLink, this.#state)) return [];
      const { owned, original, vfBefore } = this.#state;
      const what = { identity: this.#state, of: this.#of, owned, vfLink, isAway: this.#isAway, othersNames };
      const places = client ? [host, client] : [host];
      const left = await this.#patiently(places, { limitMs: WAY_BACK_LIMIT_MS }, (patience) =>
        way({ host, client, ...what, vf: { ...vf, before: vfBefore }, patience, clock: links.clock }),
      );
      for (const one of left) log.warn("netdev-not-restored", { link: original.name, ...one });
      return left;
    });
  }

  /** Work on both sides. */
  #inTurn<T>(work: (host: LinkPlace, client: LinkPlace | undefined) => Promise<T>): Promise<T> {
    return this.#inClient((client) => this.#parts.links.inHost((host) => work(host, client)));
  }

  /** Work that does not touch the host's namespace. */
  #inClient<T>(work: (client: LinkPlace | undefined) => Promise<T>): Promise<T> {
    const { client, links } = this.#parts;
    return links.inClient(client, this.#state.temporaryName, work);
  }

  /** Waits for drivers meanwhile. */
  #patiently<T>(places: readonly LinkPlace[], limit: Limit, work: (patience: Patience) => Promise<T>): Promise<T> {
    const { log, links } = this.#parts;
    return links.patiently(places, { ...limit, log, link: this.#state.original }, work);
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
    const { owned, clientIndex, original } = this.#state;
    const tables = await readOwnTables(client, clientIndex ?? 0, owned);
    await this.#remember({ owned: ownedWith({ ...owned, tables }, changes, original.mtu) });
  }

  async #remember(news: Partial<AttachmentState>): Promise<void> {
    this.#state = { ...this.#state, ...news };
    await this.#parts.record?.(this.#state);
  }
}
