// What the KERNEL mechanism needs of the node, fitted together from the rooms that do it: the inventory says which virtual
// function, the binder gives it its driver, netdev takes its network device to the client and home.
import type { Clock, Timer } from "./async/index.ts";
import type { KeptVf, VfJournal } from "./connection-journal.ts";
import { fileKey, Netns, NotANetnsError } from "./kernel/index.ts";
import {
  type AskedNetdev,
  type AttachedVf,
  type Attachment,
  type AttachmentState,
  adoptNetdev,
  attachNetdev,
  NetdevError,
  type PfPort,
  type VfSettings,
  type WantedNetdev,
  wantNetdev,
} from "./netdev/index.ts";
import type { KernelVf, KernelVfSource, OwnedFd } from "./nsm/index.ts";
import { type DriverBinder, DriverError, type Inventory, type PciAddress, type VfRecord } from "./sriov/index.ts";
import type { Log } from "./telemetry/index.ts";

/** A function that could not be bound is left out for so long, then it gets another chance. */
const PROBLEM_MS = 30_000;
/** So many functions are tried within one Request. */
const BIND_TRIES = 3;

/** The physical function of a virtual one, as far as its clients' settings go. */
export interface PfDoor {
  readonly port: PfPort;
  /** What the operator wants of every virtual function. */
  readonly settings: VfSettings;
}

/** The rooms' parts. */
export interface KernelVfParts {
  readonly inventory: Inventory;
  readonly binder: DriverBinder;
  readonly host: Netns;
  readonly pfDoor: (pf: PciAddress) => PfDoor;
  readonly journal: VfJournal;
  /** Functions that an earlier process left with clients whose namespaces nobody has shown us yet. */
  readonly unmet: Map<PciAddress, KeptVf>;
  readonly clock: Clock;
  readonly log: Log;
}

/** Virtual functions of this node for the KERNEL mechanism. */
export function kernelVfSource(parts: KernelVfParts): KernelVfSource {
  const failed = new FailedFunctions(parts);
  return {
    take({ connectionId, tokenId }) {
      const vf = parts.inventory.take({ connectionId, tokenId, use: "kernel" });
      return new NodeVf(parts, failed, { connectionId, tokenId, vf });
    },
  };
}

/** Functions that are left out for a while. */
class FailedFunctions {
  readonly #parts: KernelVfParts;
  readonly #timers = new Map<PciAddress, Timer>();

  constructor(parts: KernelVfParts) {
    this.#parts = parts;
  }

  leaveOut(address: PciAddress, problem: string): void {
    const { inventory, clock } = this.#parts;
    inventory.setProblem(address, problem);
    this.#timers.get(address)?.cancel(); // of an earlier failure: the time counts from the last one
    const timer = clock.after(PROBLEM_MS, () => {
      this.#timers.delete(address);
      // What somebody else has said of it meanwhile is not ours to take back.
      if (inventory.get(address)?.problem === problem) inventory.setProblem(address, undefined);
    });
    this.#timers.set(address, timer);
  }

  /**
   * The kernel still holds a write on it: nobody gets it before that has returned and its driver serves it again, which
   * the inventory hears of from the kernel's events.
   */
  setAside(address: PciAddress, why: string): void {
    const { inventory, clock, log } = this.#parts;
    inventory.quarantine(address, why);
    const look = () => {
      const vf = inventory.get(address);
      if (!vf) return;
      if (vf.driver !== vf.kernelDriver) {
        clock.after(PROBLEM_MS, look);
        return;
      }
      inventory.restore(address);
      log.info("vf-restored", { vf: address, driver: vf.driver });
    };
    clock.after(PROBLEM_MS, look);
  }
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

/** One function, from the moment a connection holds it until it is given back. */
class NodeVf implements KernelVf {
  readonly #parts: KernelVfParts;
  readonly #failed: FailedFunctions;
  readonly #connectionId: string;
  readonly #tokenId: string;
  #vf: VfRecord;
  #attachment: Attachment | undefined;
  /** The attachment failed on its way in, and what it left has to come home before anything else. */
  #isLeftBehind = false;

  constructor(
    parts: KernelVfParts,
    failed: FailedFunctions,
    held: { readonly connectionId: string; readonly tokenId: string; readonly vf: VfRecord },
  ) {
    this.#parts = parts;
    this.#failed = failed;
    this.#connectionId = held.connectionId;
    this.#tokenId = held.tokenId;
    this.#vf = held.vf;
  }

  get address(): string {
    return this.#vf.address;
  }

  async bind(signal: AbortSignal): Promise<void> {
    if (this.#kept) return; // It is bound, and may be with the client.
    const { binder } = this.#parts;
    for (let left = BIND_TRIES; ; left -= 1) {
      try {
        await binder.bind(this.#vf, "kernel", signal);
        await binder.netdevOf(this.#vf.address, signal);
        return;
      } catch (error) {
        if (left <= 1 || !(error instanceof DriverError) || error.fault.kind === "driver-missing") throw error;
        this.#takeAnother(error);
      }
    }
  }

  /** The fault is this function's alone: the connection gets another one of the same resource, if there is one. */
  #takeAnother(error: DriverError): void {
    const { inventory, log } = this.#parts;
    const { address } = this.#vf;
    if (error.fault.kind === "write-stuck") this.#failed.setAside(address, error.message);
    else this.#failed.leaveOut(address, error.message);
    inventory.release(this.#connectionId);
    try {
      this.#vf = inventory.take({ connectionId: this.#connectionId, tokenId: this.#tokenId, use: "kernel" });
    } catch {
      throw error; // None is left: what was wrong with the first one is what the caller has to know.
    }
    log.warn("vf-replaced", {
      connection: this.#connectionId,
      vf: address,
      by: this.#vf.address,
      error: error.message,
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
    this.#parts.inventory.setState(this.#connectionId, "ready");
  }

  async #enter(client: Netns, wanted: WantedNetdev, signal: AbortSignal): Promise<void> {
    const { binder, host, log, clock } = this.#parts;
    // Read anew: a function that comes home from another namespace may have got another index there.
    const { ifindex } = await binder.netdevOf(this.#vf.address, signal);
    const keepLeft = (left: Attachment) => {
      this.#attachment = left;
      this.#isLeftBehind = true;
    };
    const [vf, record] = [this.#attachedVf(), this.#recordFor(client)];
    this.#attachment = await attachNetdev({ host, client, ifindex, wanted, vf, log, clock, signal, record, keepLeft });
  }

  /** Goes on with what an earlier process attached. Undefined when there is nothing of the kind, or no longer: it is home. */
  async #resume(client: Netns): Promise<Attachment | undefined> {
    const kept = this.#kept;
    if (!kept) return undefined;
    const { binder, unmet } = this.#parts;
    if (kept.netns !== fileKey(client.id) || (await binder.netdevNow(kept.address))) {
      await this.detach("elsewhere");
      return undefined;
    }
    unmet.delete(kept.address);
    this.#attachment = this.#adopt(kept.state, client);
    return this.#attachment;
  }

  async stands(asked: AskedNetdev): Promise<boolean> {
    return this.#attachment !== undefined && (await this.#attachment.differences(wantNetdev(asked))).length === 0;
  }

  async detach(goes: "home" | "elsewhere", netns?: OwnedFd): Promise<void> {
    const { inventory } = this.#parts;
    const isHeld = inventory.ofConnection(this.#connectionId) !== undefined;
    if (goes === "home" && isHeld) inventory.setState(this.#connectionId, "reclaiming");
    const kept = this.#kept;
    const attachment = kept ? await this.#meet(kept, netns) : this.#attachment;
    try {
      const failures = (await attachment?.detach()) ?? [];
      const [failure] = failures;
      if (failure && (await this.#isDestroyed(failures.map(({ error }) => error)))) {
        attachment?.close();
      } else if (failure) {
        const { what, error } = failure;
        throw new Error(`Cannot bring ${this.#vf.address} home: ${what}: ${String(error)}`, { cause: error });
      }
    } finally {
      if (kept) attachment?.close();
    }
    if (kept) this.#parts.unmet.delete(kept.address);
    this.#attachment = undefined;
    this.#isLeftBehind = false;
  }

  /** The device went with its driver or its function: there is nothing to bring home, or a new device that was never away. */
  async #isDestroyed(errors: readonly unknown[]): Promise<boolean> {
    if (!(await this.#parts.binder.isPresent(this.#vf.address))) return true;
    if (!errors.every((error) => error instanceof NetdevError && error.fault.kind === "gone")) return false;
    const { binder } = this.#parts;
    const { address, kernelDriver } = this.#vf;
    if ((await binder.driverOf(address)) !== kernelDriver) return true;
    return (await binder.netdevNow(address)) !== undefined;
  }

  async giveBack(): Promise<void> {
    const { inventory, journal } = this.#parts;
    // What is quarantined stays in the journal: a restart alone makes nothing sound.
    if (inventory.get(this.#vf.address)?.state !== "quarantined") journal.forgetVf(this.#vf.address);
    inventory.release(this.#connectionId);
  }

  letGo(): void {
    this.#attachment?.close();
  }

  get #kept(): KeptVf | undefined {
    const kept = this.#parts.unmet.get(this.#vf.address);
    return kept?.connectionId === this.#connectionId ? kept : undefined;
  }

  /** What an earlier process attached, wherever it is now: the kernel may have put it home when its namespace ended. */
  async #meet({ address, netns: where, state }: KeptVf, netns: OwnedFd | undefined): Promise<Attachment> {
    const netdev = await this.#parts.binder.netdevNow(address);
    if (netdev) {
      const original = { ...state.original, index: netdev.ifindex };
      return this.#adopt({ ...state, original, name: netdev.ifname }, undefined);
    }
    const client = netns && clientNetns(netns);
    try {
      return this.#adopt(state, client && fileKey(client.id) === where ? client : undefined);
    } finally {
      client?.close();
    }
  }

  #adopt(state: AttachmentState, client: Netns | undefined): Attachment {
    const { host, clock, log } = this.#parts;
    const record = client && this.#recordFor(client);
    return adoptNetdev({ host, client, state, vf: this.#attachedVf(), log, clock, record });
  }

  #attachedVf(): AttachedVf {
    const { port, settings } = this.#parts.pfDoor(this.#vf.pf);
    return { port, index: this.#vf.index, settings };
  }

  #recordFor(client: Netns): (state: AttachmentState) => Promise<void> {
    const { address } = this.#vf;
    const [connectionId, tokenId, netns] = [this.#connectionId, this.#tokenId, fileKey(client.id)];
    return (state) => this.#parts.journal.keepVf({ address, connectionId, tokenId, netns, state });
  }
}
