// A VF as a network device of a client: a held VF (held-vf.ts) gets its kernel driver, netdev takes its network device into the
// client's namespace and back.
import { both, type Clock } from "../../async/index.ts";
import type { ConnectionContext } from "../../gen/connectioncontext_pb.ts";
import { conditionOf, type Inventory } from "../../inventory/index.ts";
import { fileKey, type Netns } from "../../kernel/index.ts";
import {
  type AttachmentState,
  attachNetdev,
  type DesiredNetdev,
  desiredNetdev,
  isForeignLink,
  NetdevAttachment,
  NetdevError,
} from "../../netdev/index.ts";
import {
  type Attachment,
  type DesiredKernel,
  type DesiredMechanism,
  type InodeUrl,
  type MechanismDriver,
  type MechanismRequest,
  PARAMETER,
  type PassedFilesOfCall,
} from "../../nsm/index.ts";
import type { PciAddress } from "../../pci/index.ts";
import { type Log, timed } from "../../telemetry/index.ts";
import type { VfJournal } from "../connection-journal.ts";
import type { HeldVf, VfHolds } from "../held-vf.ts";
import type { KernelVfEntry } from "../journal-entries.ts";
import { netdevPartsOf, type VfLinkParts } from "../netdev-parts.ts";
import { clientNetns } from "./client-netns.ts";
import { requestedNetdev } from "./requested-netdev.ts";

/** What KERNEL takes of the modules below. */
export interface KernelParts extends VfLinkParts {
  readonly holds: VfHolds;
  readonly inventory: Inventory;
  readonly journal: Pick<VfJournal, "keepVf" | "vfs">;
  /** Ends the connection with its pod: we hold the pod's namespace, which would never end by itself. Resolves with how to stop. */
  readonly watchPod: (request: HeldVf["request"]) => Promise<() => void>;
  /** Called after each move of a network device: where to, how it ended, and how long it took. */
  readonly onMoved?: (to: "client" | "host", outcome: "ok" | "failed", seconds: number) => void;
  readonly clock: Clock;
  readonly log: Log;
}

/** Gives clients a VF as a network device in their namespace: the original's resourcepool and inject for KERNEL. */
export function kernelDriver(parts: KernelParts): MechanismDriver<DesiredKernel> {
  // The inventory gives the VF of a previous instance to its connection again, as it does at every call.
  const take = ({ connectionId, desired }: MechanismRequest<DesiredKernel>) =>
    new KernelAttachment(parts, desired, parts.holds.take({ connectionId, tokenId: desired.tokenId, use: "kernel" }));
  return { open: async (ask) => take(ask), adopt: take };
}

class KernelAttachment implements Attachment {
  readonly #parts: KernelParts;
  readonly #held: HeldVf;
  #desired: DesiredKernel;
  /** The client's namespace: it is needed to restore the VF, whatever the peers do (E1). The only handle that we have of it. */
  #client: Netns | undefined;
  /** Where the client said that it is, as it was attached; undefined until then. */
  #where: string | undefined;
  #netdev: NetdevAttachment | undefined;
  /** It failed on its way in, and what it left has to be undone before anything else. */
  #isLeftBehind = false;
  #stopWatch: (() => void) | undefined;
  #isReleased = false;

  constructor(parts: KernelParts, desired: DesiredKernel, held: HeldVf) {
    this.#parts = parts;
    this.#desired = desired;
    this.#held = held;
  }

  get parameters(): Readonly<Record<string, string>> {
    return { [PARAMETER.pciAddress]: this.#address };
  }

  canServe(desired: DesiredMechanism): boolean {
    return desired.type === "KERNEL" && desired.tokenId === this.#desired.tokenId && !this.#isReleased;
  }

  async prepare({ desired, files, signal }: MechanismRequest): Promise<void> {
    const { netns } = kernelPart(desired);
    const [client] = await both(
      signal,
      { run: (either) => this.#receive(files, netns, either), drop: (received) => received.close() },
      { run: (either) => this.#bind(either) },
    );
    this.#client = client;
  }

  async apply(ask: MechanismRequest, context: ConnectionContext | undefined): Promise<void> {
    const desired = kernelPart(ask.desired);
    const netdev = desiredNetdev(requestedNetdev(desired, context));
    if (this.#where !== undefined && this.#where !== desired.netns.text) await this.#leave(ask, desired.netns);
    // After a restart of ours the VF is with its client, and the client's namespace comes with its next Request.
    this.#client ??= await this.#receive(ask.files, desired.netns, ask.signal);
    // From here on the VF may be away, even if the next step fails.
    this.#where = desired.netns.text;
    await this.#attach(this.#client, netdev, ask.signal);
    this.#desired = desired;
  }

  async isInForce(context: ConnectionContext | undefined, signal: AbortSignal): Promise<boolean> {
    const netdev = desiredNetdev(requestedNetdev(this.#desired, context));
    return this.#netdev !== undefined && (await this.#netdev.differences(netdev, signal)).length === 0;
  }

  async receiveFiles(files: PassedFilesOfCall, signal: AbortSignal): Promise<void> {
    if (!this.#isReleased) this.#client ??= await this.#receive(files, this.#desired.netns, signal);
  }

  async release(): Promise<void> {
    if (this.#isReleased) return;
    this.#held.setReclaiming();
    this.#stopWatch?.();
    this.#stopWatch = undefined;
    await this.#restore();
    this.#client?.close();
    this.#client = undefined;
    this.#held.giveBack();
    this.#isReleased = true;
  }

  close(): void {
    this.#stopWatch?.();
    this.#client?.close();
    this.#client = undefined;
  }

  get #address(): PciAddress {
    return this.#held.address;
  }

  /** What cannot be used is refused before the endpoint gets the Request and the VF is touched. */
  async #receive(files: PassedFilesOfCall, url: InodeUrl, signal: AbortSignal): Promise<Netns> {
    const fd = await files.receive(url, signal);
    try {
      return clientNetns(fd, this.#parts.links);
    } finally {
      fd.close();
    }
  }

  async #bind(signal: AbortSignal): Promise<void> {
    if (this.#pending) return; // It is bound, and may be with the client.
    await this.#held.bind(signal, async (address) => {
      const { ifindex } = await this.#parts.binder.netdevOf(address, signal);
      // To choose another VF in time; what else may be wrong now, the way in waits for.
      await this.#parts.links.verified(address, ifindex).catch((error: unknown) => {
        if (isForeignLink(error)) throw error;
      });
    });
  }

  /** The client lives in another namespace now, after a restart for example (E13). */
  async #leave(ask: MechanismRequest, netns: InodeUrl): Promise<void> {
    const client = await this.#receive(ask.files, netns, ask.signal);
    try {
      await this.#restore();
    } catch (error) {
      client.close();
      throw error;
    }
    this.#client?.close();
    this.#client = client;
  }

  async #attach(client: Netns, desired: DesiredNetdev, signal: AbortSignal): Promise<void> {
    if (this.#isLeftBehind) await this.#restore();
    if (this.#netdev) return await this.#netdev.update(desired, signal);
    const resumed = await this.#resume(client);
    if (resumed) await resumed.update(desired, signal);
    else await this.#enter(client, desired, signal);
    this.#stopWatch ??= await this.#parts.watchPod(this.#held.request);
    this.#held.setReady();
  }

  async #enter(client: Netns, desired: DesiredNetdev, signal: AbortSignal): Promise<void> {
    // Read again: a VF that comes back from another namespace may have got another index here.
    const { ifindex } = await this.#parts.binder.netdevOf(this.#address, signal);
    await this.#held.refuseHostUse();
    const keepLeft = (left: NetdevAttachment) => {
      this.#netdev = left;
      this.#isLeftBehind = true;
    };
    const record = this.#recordFor(client);
    const move = { ...this.#netdevParts(), client, ifindex, desired, signal, record, keepLeft };
    try {
      this.#netdev = await this.#moving("client", () => attachNetdev(move));
    } catch (error) {
      this.#held.withholdIfForeign(error);
      throw error;
    }
  }

  /** What the journal has of it from the previous instance, until the client's namespace has come or it is restored. */
  get #pending(): KernelVfEntry | undefined {
    const { inventory, journal } = this.#parts;
    const vf = inventory.ofConnection(this.#held.request.connectionId);
    const entry = vf && conditionOf(vf, "pending-netns") && journal.vfs.get(vf.address);
    return entry?.use === "kernel" ? entry : undefined;
  }

  /** Continues what the previous instance attached. Undefined when there is nothing of the kind, or no longer: it is restored. */
  async #resume(client: Netns): Promise<NetdevAttachment | undefined> {
    const pending = this.#pending;
    if (!pending) return undefined;
    // As far as can be known: it was left in that namespace, and is not in the host.
    const isThere = pending.netns === fileKey(client.id) && !(await this.#parts.binder.netdevNow(this.#address));
    if (isThere) {
      this.#parts.inventory.clear(this.#address, "pending-netns");
      this.#netdev = this.#adopt(pending.state, client);
    } else await this.#restore();
    return this.#netdev;
  }

  /** To restore it, wherever it is now: the kernel may have put it into the host when its namespace ended. */
  async #adoptPending({ netns, state }: KernelVfEntry): Promise<NetdevAttachment> {
    const { binder, links } = this.#parts;
    const netdev = await binder.netdevNow(this.#address);
    if (netdev) {
      await links.verified(this.#address, netdev.ifindex);
      return this.#adopt(state, undefined);
    }
    const client = this.#client;
    return this.#adopt(state, client && fileKey(client.id) === netns ? client : undefined);
  }

  /** Returns it to the host and makes it as it was before the client; nothing to do when it never left. */
  async #restore(): Promise<void> {
    const pending = this.#pending;
    const netdev = pending ? await this.#adoptPending(pending) : this.#netdev;
    if (netdev) await this.#moving("host", () => this.#detach(netdev));
    if (pending) this.#parts.inventory.clear(this.#address, "pending-netns");
    this.#netdev = undefined;
    this.#isLeftBehind = false;
  }

  async #detach(netdev: NetdevAttachment): Promise<void> {
    const failures = await netdev.detach();
    const [failure] = failures;
    if (!failure || (await this.#isDestroyed(failures.map(({ error }) => error)))) return;
    const { what, error } = failure;
    throw new Error(`Cannot restore ${this.#address}: ${what}: ${String(error)}`, { cause: error });
  }

  #moving<T>(to: "client" | "host", move: () => Promise<T>): Promise<T> {
    const { clock, onMoved } = this.#parts;
    return timed(clock, (outcome, seconds) => onMoved?.(to, outcome, seconds), move);
  }

  /** The device went with its driver or its VF: there is nothing to restore, or a new device that was never away. */
  async #isDestroyed(errors: readonly unknown[]): Promise<boolean> {
    const { binder } = this.#parts;
    const { address, kernelDriver } = this.#held.vf;
    if (!(await binder.isPresent(address))) return true;
    if (!errors.every((error) => error instanceof NetdevError && error.fault.kind === "gone")) return false;
    if ((await binder.driverOf(address)) !== kernelDriver) return true;
    return (await binder.netdevNow(address)) !== undefined;
  }

  #adopt(state: AttachmentState, client: Netns | undefined): NetdevAttachment {
    const record = client && this.#recordFor(client);
    return new NetdevAttachment({ ...this.#netdevParts(), client, state, record });
  }

  #netdevParts() {
    const log = this.#parts.log.with({ connection: this.#held.request.connectionId, vf: this.#address });
    return { ...netdevPartsOf(this.#parts, this.#held.vf), log };
  }

  #recordFor(client: Netns): (state: AttachmentState) => Promise<void> {
    const { connectionId, tokenId } = this.#held.request;
    const [address, netns] = [this.#address, fileKey(client.id)];
    return (state) => this.#parts.journal.keepVf({ use: "kernel", address, connectionId, tokenId, netns, state });
  }
}

function kernelPart(desired: DesiredMechanism): DesiredKernel {
  if (desired.type !== "KERNEL") throw new Error(`The KERNEL mechanism was asked for ${desired.type}`);
  return desired;
}
