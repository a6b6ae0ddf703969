// What the KERNEL mechanism needs of the node, fitted together from the rooms that do it: the inventory says which virtual
// function, the binder gives it its driver, netdev takes its network device to the client and home.
import type { Clock, Timer } from "./async/index.ts";
import { Netns, NotANetnsError } from "./kernel/index.ts";
import {
  type AskedNetdev,
  type Attachment,
  attachNetdev,
  NetdevError,
  type PfPort,
  type VfSettings,
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
    if (error.fault.kind === "write-stuck") inventory.quarantine(address, error.message);
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
    const { binder, host, inventory, log, clock } = this.#parts;
    // Read anew: a function that comes home from another namespace may have got another index there.
    const { ifindex } = await binder.netdevOf(this.#vf.address, signal);
    const client = clientNetns(netns);
    try {
      const { port, settings } = this.#parts.pfDoor(this.#vf.pf);
      const vf = { port, index: this.#vf.index, settings };
      const keepLeft = (left: Attachment) => {
        this.#attachment = left;
        this.#isLeftBehind = true;
      };
      this.#attachment = await attachNetdev({ host, client, ifindex, wanted, vf, log, clock, signal, keepLeft });
    } finally {
      client.close();
    }
    inventory.setState(this.#connectionId, "ready");
  }

  async stands(asked: AskedNetdev): Promise<boolean> {
    return this.#attachment !== undefined && (await this.#attachment.differences(wantNetdev(asked))).length === 0;
  }

  async detach(goes: "home" | "elsewhere"): Promise<void> {
    const { inventory } = this.#parts;
    const isHeld = inventory.ofConnection(this.#connectionId) !== undefined;
    if (goes === "home" && isHeld) inventory.setState(this.#connectionId, "reclaiming");
    const [failure] = (await this.#attachment?.detach()) ?? [];
    if (failure) {
      const { what, error } = failure;
      throw new Error(`Cannot bring ${this.#vf.address} home: ${what}: ${String(error)}`, { cause: error });
    }
    this.#attachment = undefined;
    this.#isLeftBehind = false;
  }

  async giveBack(): Promise<void> {
    this.#parts.inventory.release(this.#connectionId);
  }

  letGo(): void {
    this.#attachment?.close();
  }
}
