import { type Clock, KeyedQueue } from "../async/index.ts";
import type { Netns } from "../kernel/index.ts";
import type { Log } from "../telemetry/index.ts";
import { applyWanted } from "./apply.ts";
import { type Change, changeText } from "./change.ts";
import type { WantedNetdev } from "./desired.ts";
import { NetdevError } from "./error.ts";
import { bringHome, type NotRestored } from "./home.ts";
import { setLinkMac } from "./mac.ts";
import { checkNameFree, findInClient, type LinkIdentity, moveIn } from "./move.ts";
import { type Owned, ownTables } from "./owned.ts";
import { planChanges } from "./plan.ts";
import { inSession, readAround, type Session } from "./read.ts";
import { applyVfSettings, differingSettings, isBearable, type PfPort, type VfSettings } from "./vf-settings.ts";

/** All that must be known to take a link back, also by another process: plain data, to be kept in a journal. */
export interface AttachmentState extends LinkIdentity {
  readonly owned: Owned;
  /** What the PF held before we changed it. */
  readonly vfBefore: VfSettings;
}

/** The VF beneath a link: its PF, its number there, and what the operator wants of every VF of that PF. */
export interface AttachedVf {
  readonly port: PfPort;
  readonly index: number;
  readonly settings: VfSettings;
}

/** What an attachment needs for its whole life. */
export interface AttachmentParts {
  readonly host: Netns;
  /** Owned by the attachment from now on; undefined when the namespace is known to be dead. */
  readonly client: Netns | undefined;
  readonly state: AttachmentState;
  readonly vf?: AttachedVf | undefined;
  readonly log: Log;
  readonly clock: Clock;
  /** Told before each step that the state does not yet tell of; the step waits for it. */
  readonly record?: ((state: AttachmentState) => Promise<void>) | undefined;
}

// A namespace is one thing for the whole process, whoever holds a handle of it: two links that enter it at once would
// pick the same free routing table.
const turns = new KeyedQueue<string>();

/** A link of the host that is in a client's namespace, or on its way. */
export class Attachment {
  readonly #parts: AttachmentParts;
  #client: Netns | undefined;
  #state: AttachmentState;
  #home = false;
  #kernelWrites = 0;
  /** Settings that the driver can tell but not set: asked for once per process, no difference afterwards. */
  readonly #unsupported = new Set<keyof VfSettings>();

  constructor(parts: AttachmentParts) {
    this.#parts = parts;
    this.#client = parts.client;
    this.#state = parts.state;
  }

  get state(): AttachmentState {
    return this.#state;
  }

  /** Whether the link was given to that namespace: a client that comes with another one wants to be attached anew. */
  isIn(netns: Netns): boolean {
    return this.#client?.isSame(netns) ?? false;
  }

  /** Requests so far that could change something in the kernel, those of the PF's port not among them. */
  get kernelWrites(): number {
    return this.#kernelWrites;
  }

  /** Settings, move, name, addresses: the whole way in. Its caller detaches when it fails. */
  enter(wanted: WantedNetdev, signal?: AbortSignal): Promise<void> {
    return this.#inTurn(async (host, client) => {
      if (!client) throw new NetdevError({ kind: "gone", link: wanted.name, where: "a namespace that has died" });
      const { original } = this.#state;
      await checkNameFree(client, wanted.name);
      await this.#remember({});
      signal?.throwIfAborted();
      // Down: no frame leaves the VF before its address, its VLAN and its limits stand.
      if (original.up) await host.rtnl.setLink(original.index, { up: false });
      await this.#applyVf(host, original.index, wanted);
      signal?.throwIfAborted();
      const clientIndex = await moveIn(host, client, this.#state);
      await this.#remember({ clientIndex });
      await this.#apply(client, wanted, { first: true, signal });
      this.#parts.log.info("netdev-attached", { link: original.name, name: wanted.name, clientIndex });
    });
  }

  /**
   * Brings what stands to what is wanted now; writes nothing when it stands.
   * @throws {NetdevError | KernelError} with the link in between: call again, or detach.
   */
  update(wanted: WantedNetdev, signal?: AbortSignal): Promise<void> {
    return this.#inClient(async (client) => {
      const link = client && (await findInClient(client, this.#state));
      if (!link) throw new NetdevError({ kind: "gone", link: this.#state.name, where: "the client's namespace" });
      if (link.name !== wanted.name) await checkNameFree(client, wanted.name);
      const { name, clientIndex } = this.#state;
      if (name !== wanted.name || clientIndex !== link.index) {
        await this.#remember({ name: wanted.name, clientIndex: link.index });
      }
      await this.#applyVf(client, link.index, wanted);
      await this.#apply(client, wanted, { first: false, signal });
    });
  }

  /** What is not as wanted, as text, by reading only. Empty: an unchanged refresh has nothing to do. */
  differences(wanted: WantedNetdev): Promise<readonly string[]> {
    return this.#inClient(async (client) => {
      const link = client && (await findInClient(client, this.#state));
      const standing = link && (await readAround(client, link));
      if (!standing) return [`link ${wanted.name} is not in the namespace`];
      const { owned, original } = this.#state;
      const changes = planChanges({ standing, wanted, owned, originalMtu: original.mtu });
      const { vf } = this.#parts;
      const settings = vf ? differingSettings(await vf.port.read(vf.index), this.#vfWanted(wanted)) : [];
      const known = settings.filter((setting) => !this.#unsupported.has(setting));
      return [...changes.map(changeText), ...known.map((setting) => `vf ${setting}`)];
    });
  }

  /**
   * Brings the link home and makes it what it was. Tells what could not be restored, and can be called again for that;
   * a VF with anything left must not be given to another client.
   */
  async detach(): Promise<readonly NotRestored[]> {
    if (this.#home) return [];
    return this.#inTurn(async (host, client) => {
      const { port, index } = this.#parts.vf ?? {};
      const vf = port && index !== undefined ? { port, index, before: this.#state.vfBefore } : undefined;
      const { clock, log } = this.#parts;
      const left = await bringHome({ host, client, identity: this.#state, owned: this.#state.owned, vf, clock });
      this.#home = left.length === 0;
      for (const { what, error } of left)
        log.warn("netdev-not-restored", { link: this.#state.original.name, what, error });
      if (this.#home) log.info("netdev-detached", { link: this.#state.original.name, name: this.#state.name });
      return left;
    }).finally(() => {
      if (this.#home) this.close();
    });
  }

  /** Lets go of the namespace without touching the link: another process goes on from the state. */
  close(): void {
    this.#client?.close();
    this.#client = undefined;
  }

  /** Work on both sides. */
  #inTurn<T>(work: (host: Session, client: Session | undefined) => Promise<T>): Promise<T> {
    return this.#inClient((client) => this.#counted(this.#parts.host, (host) => work(host, client)));
  }

  /** Work that does not touch the host's namespace. */
  #inClient<T>(work: (client: Session | undefined) => Promise<T>): Promise<T> {
    const client = this.#client;
    const key = client ? `${client.id.dev}:${client.id.ino}` : `no namespace, link ${this.#state.temporaryName}`;
    return turns.run(key, () => (client ? this.#counted(client, work) : work(undefined)));
  }

  #counted<T>(netns: Netns, work: (session: Session) => Promise<T>): Promise<T> {
    return inSession(netns, async (session) => {
      try {
        return await work(session);
      } finally {
        this.#kernelWrites += session.rtnl.counts.writes;
      }
    });
  }

  async #apply(
    client: Session,
    wanted: WantedNetdev,
    options: { first: boolean; signal?: AbortSignal | undefined },
  ): Promise<void> {
    const { clientIndex, original } = this.#state;
    if (clientIndex === undefined) throw new Error(`${original.name} is applied before it is in the namespace`);
    const { log, clock } = this.#parts;
    await applyWanted({
      session: client,
      ifindex: clientIndex,
      wanted,
      originalMtu: original.mtu,
      ...options,
      owned: () => this.#state.owned,
      own: (changes) => this.#own(client, changes),
      log,
      clock,
    });
  }

  /** Remembers what the kernel's marks will not tell. */
  async #own(client: Session, changes: readonly Change[]): Promise<void> {
    const { owned, clientIndex } = this.#state;
    const addresses = new Set(owned.addresses);
    const tables = new Set(ownTables(clientIndex ?? 0, await client.rtnl.routes(), owned));
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

  #vfWanted(wanted: WantedNetdev): VfSettings {
    return { ...this.#parts.vf?.settings, mac: wanted.mac, vlan: wanted.vlan };
  }

  async #applyVf(session: Session, ifindex: number, wanted: WantedNetdev): Promise<void> {
    const { vf, clock, log } = this.#parts;
    const { mac } = wanted;
    if (vf) {
      const settings = this.#vfWanted(wanted);
      const standing = await vf.port.read(vf.index);
      const before = Object.fromEntries(Object.keys(settings).map((key) => [key, standing[key as keyof VfSettings]]));
      await this.#remember({ vfBefore: { ...before, ...this.#state.vfBefore } });
      // Before the PF has a word on it: a VF with an administrative address may not choose its own any more.
      if (mac !== undefined && standing.mac !== mac) await this.#tryMac(session, ifindex, mac);
      const { faults } = await applyVfSettings(vf.port, vf.index, settings);
      for (const fault of faults) {
        if (!isBearable(fault, settings)) throw fault.error;
        this.#unsupported.add(fault.setting);
        log.warn("vf-setting-unsupported", { vf: vf.index, setting: fault.setting, error: fault.error });
      }
    }
    if (mac !== undefined) await setLinkMac({ session, ifindex, mac, vf, clock });
  }

  async #tryMac(session: Session, ifindex: number, mac: string): Promise<void> {
    await session.rtnl.setLink(ifindex, { address: mac }).catch((error: unknown) => {
      this.#parts.log.debug("link-refuses-mac", { ifindex, mac, error });
    });
  }
}
