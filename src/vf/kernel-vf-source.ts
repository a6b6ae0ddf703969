// What the KERNEL mechanism needs of the node, fitted together from the rooms that do it: a held VF (held-vf.ts) gets
// its kernel driver, netdev takes its network device to the client and home.
import type { Clock, Random } from "../async/index.ts";
import { conditionOf, type Inventory } from "../inventory/index.ts";
import { fileKey, type LinkOwnerOf, Netns, NotANetnsError, type OpenRtnl } from "../kernel/index.ts";
import {
  type AskedNetdev,
  type AttachedVf,
  type Attachment,
  type AttachmentState,
  adoptNetdev,
  attachNetdev,
  NetdevError,
  type VfIdentity,
  type WantedNetdev,
  wantNetdev,
} from "../netdev/index.ts";
import type { PfDoor } from "../node/index.ts";
import type { KernelVf, KernelVfSource, OwnedFd } from "../nsm/index.ts";
import type { DriverBinder, PciAddress } from "../pci/index.ts";
import { type Log, timed } from "../telemetry/index.ts";
import type { KernelVfEntry, VfJournal } from "./connection-journal.ts";
import type { HeldVf, VfHolds } from "./held-vf.ts";
import { isForeignLink } from "./link-check.ts";
import { vfLinkOf } from "./vf-link.ts";

/** The rooms' parts. */
export interface KernelVfParts {
  readonly holds: VfHolds;
  readonly binder: DriverBinder;
  readonly host: Netns;
  readonly openRtnl: OpenRtnl;
  readonly linkOwnerOf: LinkOwnerOf;
  /** Whether the link under an index of the host is that VF's. @throws {NetdevError} gone, not-its-link. */
  readonly verifyLink: (address: PciAddress, ifindex: number) => Promise<void>;
  readonly pfDoor: (pf: PciAddress) => PfDoor;
  readonly inventory: Inventory;
  readonly journal: Pick<VfJournal, "keepVf" | "vfs">;
  /** Ends the connection with its pod: we hold the pod's namespace, which would never end by itself. Resolves with how to stop. */
  readonly watchPod: (ask: HeldVf["ask"]) => Promise<() => void>;
  /** Told of every move of a network device: where to, how it ended, and how long it took. */
  readonly onMoved?: (to: "client" | "home", outcome: "ok" | "failed", seconds: number) => void;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
}

/** VFs of this node for the KERNEL mechanism. */
export function kernelVfSource(parts: KernelVfParts): KernelVfSource {
  return { take: (ask) => new NodeVf(parts, parts.holds.take({ ...ask, use: "kernel" })) };
}

/** @throws {NetdevError} when the client has sent something else. */
function clientNetns(fd: OwnedFd): Netns {
  try {
    return Netns.fromFd(fd);
  } catch (error) {
    if (!(error instanceof NotANetnsError)) throw error;
    throw new NetdevError({ kind: "not-a-namespace", problem: error.message }, { cause: error });
  }
}

/** One VF, from the moment a connection holds it until it is given back. */
class NodeVf implements KernelVf {
  readonly #parts: KernelVfParts;
  readonly #held: HeldVf;
  #attachment: Attachment | undefined;
  /** The attachment failed on its way in, and what it left has to come home before anything else. */
  #isLeftBehind = false;
  #stopWatch: (() => void) | undefined;

  constructor(parts: KernelVfParts, held: HeldVf) {
    this.#parts = parts;
    this.#held = held;
  }

  get #log(): Log {
    return this.#parts.log.with({ connection: this.#held.ask.connectionId, vf: this.address });
  }

  get address(): PciAddress {
    return this.#held.address;
  }

  check(netns: OwnedFd): void {
    const client = clientNetns(netns);
    const isHost = client.isSame(this.#parts.host);
    client.close();
    if (isHost) throw new NetdevError({ kind: "host-namespace" });
  }

  async bind(signal: AbortSignal): Promise<void> {
    if (this.#pending) return; // It is bound, and may be with the client.
    await this.#held.bind(signal, async (address) => {
      const { ifindex } = await this.#parts.binder.netdevOf(address, signal);
      // To choose another VF in time; what else may be wrong now, the way in waits for.
      await this.#parts.verifyLink(address, ifindex).catch((error: unknown) => {
        if (isForeignLink(error)) throw error;
      });
    });
  }

  async attach(netns: OwnedFd, asked: AskedNetdev, signal: AbortSignal): Promise<void> {
    const wanted = wantNetdev(asked);
    if (this.#isLeftBehind) await this.detach("elsewhere");
    if (this.#attachment) return await this.#attachment.update(wanted, signal);
    const client = clientNetns(netns);
    try {
      const resumed = await this.#resume(client);
      if (resumed) await resumed.update(wanted, signal);
      else await this.#enter(client, wanted, signal);
    } finally {
      client.close();
    }
    this.#stopWatch ??= await this.#parts.watchPod(this.#held.ask);
    this.#held.setReady();
  }

  async #enter(client: Netns, wanted: WantedNetdev, signal: AbortSignal): Promise<void> {
    const { binder, host, openRtnl, clock, random } = this.#parts;
    // Read anew: a VF that comes home from another namespace may have got another index there.
    const { ifindex } = await binder.netdevOf(this.address, signal);
    await this.#held.refuseHostUse();
    const keepLeft = (left: Attachment) => {
      this.#attachment = left;
      this.#isLeftBehind = true;
    };
    const [vf, record] = [this.#attachedVf(), this.#recordFor(client)];
    const link = { of: this.#identity, vfLink: vfLinkOf(binder, this.#held.vf) };
    const places = { host, client, openRtnl, ifindex, ...link };
    const move = { ...places, wanted, vf, log: this.#log, clock, random, signal, record, keepLeft };
    try {
      this.#attachment = await this.#moving("client", () => attachNetdev(move));
    } catch (error) {
      this.#held.withholdIfForeign(error);
      throw error;
    }
  }

  /** What the journal has of it from the previous instance, until the client's namespace has come or it is restored. */
  get #pending(): KernelVfEntry | undefined {
    const { inventory, journal } = this.#parts;
    const vf = inventory.ofConnection(this.#held.ask.connectionId);
    const entry = vf && conditionOf(vf, "pending-netns") && journal.vfs.get(vf.address);
    return entry?.use === "kernel" ? entry : undefined;
  }

  /** Continues what the previous instance attached. Undefined when there is nothing of the kind, or no longer: it is restored. */
  async #resume(client: Netns): Promise<Attachment | undefined> {
    const pending = this.#pending;
    if (!pending) return undefined;
    // As far as can be known: it was left in that namespace, and is not in the host.
    const isThere = pending.netns === fileKey(client.id) && !(await this.#parts.binder.netdevNow(this.address));
    if (isThere) {
      this.#parts.inventory.clear(this.address, "pending-netns");
      this.#attachment = this.#adopt(pending.state, client);
    } else await this.detach("elsewhere");
    return this.#attachment;
  }

  /** To restore it, wherever it is now: the kernel may have put it into the host when its namespace ended. */
  async #adoptPending({ netns, state }: KernelVfEntry, openClient: () => Netns | undefined): Promise<Attachment> {
    const netdev = await this.#parts.binder.netdevNow(this.address);
    if (netdev) {
      await this.#parts.verifyLink(this.address, netdev.ifindex);
      const original = { ...state.original, index: netdev.ifindex };
      return this.#adopt({ ...state, original, name: netdev.ifname }, undefined);
    }
    const client = openClient();
    try {
      return this.#adopt(state, client && fileKey(client.id) === netns ? client : undefined);
    } finally {
      client?.close();
    }
  }

  async stands(asked: AskedNetdev, signal: AbortSignal): Promise<boolean> {
    return (
      this.#attachment !== undefined && (await this.#attachment.differences(wantNetdev(asked), signal)).length === 0
    );
  }

  async detach(goes: "home" | "elsewhere", netns?: OwnedFd): Promise<void> {
    if (goes === "home") {
      this.#held.setReclaiming();
      this.#stopWatch?.();
      this.#stopWatch = undefined;
    }
    const pending = this.#pending;
    const openClient = () => netns && clientNetns(netns);
    const attachment = pending ? await this.#adoptPending(pending, openClient) : this.#attachment;
    try {
      if (attachment) await this.#moving("home", () => this.#bringHome(attachment));
    } finally {
      if (pending) attachment?.close();
    }
    if (pending) this.#parts.inventory.clear(this.address, "pending-netns");
    this.#attachment = undefined;
    this.#isLeftBehind = false;
  }

  async #bringHome(attachment: Attachment): Promise<void> {
    const failures = await attachment.detach();
    const [failure] = failures;
    if (!failure) return;
    if (!(await this.#isDestroyed(failures.map(({ error }) => error)))) {
      const { what, error } = failure;
      throw new Error(`Cannot bring ${this.address} home: ${what}: ${String(error)}`, { cause: error });
    }
    attachment.close();
  }

  #moving<T>(to: "client" | "home", move: () => Promise<T>): Promise<T> {
    const { clock, onMoved } = this.#parts;
    return timed(clock, (outcome, seconds) => onMoved?.(to, outcome, seconds), move);
  }

  /** The device went with its driver or its VF: there is nothing to bring home, or a new device that was never away. */
  async #isDestroyed(errors: readonly unknown[]): Promise<boolean> {
    const { binder } = this.#parts;
    const { address, kernelDriver } = this.#held.vf;
    if (!(await binder.isPresent(address))) return true;
    if (!errors.every((error) => error instanceof NetdevError && error.fault.kind === "gone")) return false;
    if ((await binder.driverOf(address)) !== kernelDriver) return true;
    return (await binder.netdevNow(address)) !== undefined;
  }

  async giveBack(): Promise<void> {
    this.#held.giveBack();
  }

  letGo(): void {
    this.#stopWatch?.();
    this.#attachment?.close();
  }

  #adopt(state: AttachmentState, client: Netns | undefined): Attachment {
    const { binder, host, openRtnl, clock, random } = this.#parts;
    const record = client && this.#recordFor(client);
    const link = { of: this.#identity, vf: this.#attachedVf(), vfLink: vfLinkOf(binder, this.#held.vf) };
    return adoptNetdev({ host, client, openRtnl, state, ...link, log: this.#log, clock, random, record });
  }

  get #identity(): VfIdentity {
    return { address: this.address, linkOwnerOf: this.#parts.linkOwnerOf };
  }

  #attachedVf(): AttachedVf {
    const { pf, index } = this.#held.vf;
    const { port, settings } = this.#parts.pfDoor(pf);
    return { port, index, settings };
  }

  #recordFor(client: Netns): (state: AttachmentState) => Promise<void> {
    const { connectionId, tokenId } = this.#held.ask;
    const [address, netns] = [this.address, fileKey(client.id)];
    return (state) => this.#parts.journal.keepVf({ use: "kernel", address, connectionId, tokenId, netns, state });
  }
}
