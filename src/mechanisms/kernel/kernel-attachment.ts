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
  type HostSide,
  isForeignLink,
  NetdevAttachment,
  NetdevError,
  ownedAsGiven,
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
import { othersNames } from "../promised-names.ts";
import { clientNetns } from "./client-netns.ts";
import { detachVf } from "./detach-vf.ts";
import { type FoundVf, type FoundVfParts, takeFound } from "./found-vf.ts";
import { requestedNetdev } from "./requested-netdev.ts";

/** What KERNEL takes of the modules below. */
export interface KernelParts extends VfLinkParts, Pick<FoundVfParts, "survey"> {
  readonly holds: VfHolds;
  readonly inventory: Inventory;
  readonly journal: Pick<VfJournal, "keepVf" | "vfs" | "unrestored">;
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
  const { holds } = parts;
  const takeRequest = ({ connectionId, desired: { tokenId } }: MechanismRequest<DesiredKernel>) =>
    ({ connectionId, tokenId, use: "kernel" }) as const;
  return {
    async open(request) {
      const { desired, files, signal } = request;
      const found = await takeFound(parts, request, () => received(parts, files, desired.netns, signal));
      if (!found) return new KernelAttachment(parts, desired, await holds.takeSoon(takeRequest(request), signal));
      const attachment = new KernelAttachment(parts, desired, holds.take(takeRequest(request)));
      attachment.resumeFound(found, request);
      return attachment;
    },
    adopt: (request) => new KernelAttachment(parts, request.desired, holds.take(takeRequest(request))),
  };
}

/** What cannot be used is refused before the endpoint gets the Request and the VF is touched. */
async function received(
  { links }: KernelParts,
  files: PassedFilesOfCall,
  url: InodeUrl,
  signal: AbortSignal,
): Promise<Netns> {
  const fd = await files.receive(url, signal);
  try {
    return clientNetns(fd, links);
  } finally {
    fd.close();
  }
}

class KernelAttachment implements Attachment<DesiredKernel> {
  readonly #parts: KernelParts;
  readonly #held: HeldVf;
  #desired: DesiredKernel;
  /** The client's namespace: it is needed to restore the VF, whatever the peers do (E1). The only handle that we have of it. */
  #client: Netns | undefined;
  /** Where the client said that it is, as it was attached; undefined until then. */
  #where: string | undefined;
  #netdev: NetdevAttachment | undefined;
  /** The client can have changed it, and its driver has to make another one. */
  #wasOut = false;
  /** How the host had it before that. */
  #before: HostSide | undefined;
  /** It failed on its way in, and what it left has to be undone before anything else. */
  #isLeftBehind = false;
  /** Its client had it before this connection, which is not established yet. */
  #isFound = false;
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

  /** Its client has it already; until its connection is established nothing that fails takes it away. */
  resumeFound({ client, state }: FoundVf, { desired, given }: MechanismRequest<DesiredKernel>): void {
    this.#client = client;
    this.#isFound = true;
    this.#wasOut = true;
    this.#netdev = this.#adopt(asGiven(state, desired, given), client);
  }

  async prepare({ desired, files, signal }: MechanismRequest<DesiredKernel>): Promise<void> {
    if (this.#isFound) return; // It is with the client, and its namespace is here.
    const [client] = await both(
      signal,
      { run: (either) => this.#receive(files, desired.netns, either), drop: (received) => received.close() },
      { run: (either) => this.#bind(either) },
    );
    this.#client = client;
  }

  async apply(request: MechanismRequest<DesiredKernel>, context: ConnectionContext | undefined): Promise<void> {
    const { desired } = request;
    const netdev = desiredNetdev(requestedNetdev(desired, context));
    if (this.#where !== undefined && this.#where !== desired.netns.text) await this.#leave(request, desired.netns);
    // After a restart of ours the VF is with its client, and the client's namespace comes with its next Request.
    this.#client ??= await this.#receive(request.files, desired.netns, request.signal);
    // From here on the VF may be away, even if the next step fails.
    this.#where = desired.netns.text;
    await this.#attach(this.#client, netdev, request.signal);
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
    if (this.#isFound) return this.#leaveAsFound();
    if (this.#wasOut || this.#pending) await this.#takeAway();
    else await this.#restore();
    this.#client?.close();
    this.#client = undefined;
    const isToClean = this.#wasOut || (await this.#isRenamed());
    if (isToClean && (await this.#parts.binder.isPresent(this.#address))) await this.#held.leaveToBeCleaned();
    else this.#held.giveBack();
    this.#isReleased = true;
  }

  /** Its driver has made it again on its way in, and its name was another link's by then. Who cleans it keeps the name for it. */
  async #isRenamed(): Promise<boolean> {
    const { binder, journal } = this.#parts;
    const entry = journal.vfs.get(this.#address);
    if (entry?.use !== "kernel" || journal.unrestored.has(this.#address)) return false;
    const netdev = await binder.netdevNow(this.#address).catch(() => undefined);
    return netdev !== undefined && netdev.ifname !== entry.state.original.name;
  }

  #leaveAsFound(): void {
    this.close();
    this.#held.leaveAsFound({ code: "netdev-missing" });
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

  #receive(files: PassedFilesOfCall, url: InodeUrl, signal: AbortSignal): Promise<Netns> {
    return received(this.#parts, files, url, signal);
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
  async #leave(request: MechanismRequest<DesiredKernel>, netns: InodeUrl): Promise<void> {
    const client = await this.#receive(request.files, netns, request.signal);
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
    if (this.#netdev && !this.#isFound) return await this.#netdev.update(desired, signal);
    const resumed = this.#netdev ?? (await this.#resume(client));
    if (resumed) await resumed.update(desired, signal);
    else await this.#enter(client, desired, signal);
    this.#stopWatch ??= await this.#parts.watchPod(this.#held.request);
    this.#held.setReady();
    this.#isFound = false;
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
    const before = this.#before ?? this.#parts.journal.unrestored.beforeOf(this.#address)?.state;
    const move = { ...this.#netdevParts(), client, ifindex, desired, before, signal, record, keepLeft };
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
      this.#wasOut = true;
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

  /** Out of the client's hands. What resists is no reason to keep it: its driver takes it away, wherever it is then. */
  async #takeAway(): Promise<void> {
    const pending = this.#pending;
    const netdev = pending ? await this.#adoptPending(pending) : this.#netdev;
    if (netdev) await this.#moving("host", () => this.#leaveIn(netdev)).catch(() => {}); // logged
    if (pending) this.#parts.inventory.clear(this.#address, "pending-netns");
    this.#wasOut = true;
    this.#netdev = undefined;
  }

  async #leaveIn(netdev: NetdevAttachment): Promise<void> {
    const [failure] = await netdev.leave();
    if (failure) throw failure.error;
  }

  /** Returns it to the host and makes it as it was, for the same client or where none has had it; nothing to do when it never left. */
  async #restore(): Promise<void> {
    const pending = this.#pending;
    if (pending) this.#wasOut = true;
    const netdev = pending ? await this.#adoptPending(pending) : this.#netdev;
    if (netdev) await this.#moving("host", () => detachVf(this.#parts.binder, this.#held.vf, netdev));
    if (pending) this.#parts.inventory.clear(this.#address, "pending-netns");
    this.#netdev = undefined;
    this.#isLeftBehind = false;
  }

  #moving<T>(to: "client" | "host", move: () => Promise<T>): Promise<T> {
    const { clock, onMoved } = this.#parts;
    return timed(clock, (outcome, seconds) => onMoved?.(to, outcome, seconds), move);
  }

  #adopt(state: AttachmentState, client: Netns | undefined): NetdevAttachment {
    const record = client && this.#recordFor(client);
    this.#before ??= state;
    return new NetdevAttachment({ ...this.#netdevParts(), client, state, record });
  }

  #netdevParts() {
    const log = this.#parts.log.with({ connection: this.#held.request.connectionId, vf: this.#address });
    const onLeaving = () => {
      this.#wasOut = true;
    };
    const names = othersNames(this.#parts, this.#address);
    return { ...netdevPartsOf(this.#parts, this.#held.vf), onLeaving, othersNames: names, log };
  }

  #recordFor(client: Netns): (state: AttachmentState) => Promise<void> {
    const { connectionId, tokenId } = this.#held.request;
    const [address, netns] = [this.#address, fileKey(client.id)];
    return (state) => {
      // It may be of another VF by now, which has the address of the one before.
      if (this.#wasOut && (!this.#before?.kept || this.#before.device !== state.device)) this.#before = state;
      const found = this.#isFound && { isFound: true as const };
      return this.#parts.journal.keepVf({ use: "kernel", address, connectionId, tokenId, netns, state, ...found });
    };
  }
}

/** What the client has got of what it says it was given is ours from now on. */
function asGiven(
  state: AttachmentState,
  desired: DesiredKernel,
  given: ConnectionContext | undefined,
): AttachmentState {
  try {
    return given ? ownedAsGiven(state, desiredNetdev(requestedNetdev(desired, given))) : state;
  } catch (error) {
    if (error instanceof NetdevError) return state; // it says nothing that makes sense
    throw error;
  }
}
