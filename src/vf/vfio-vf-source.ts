// What the VFIO mechanism needs of the node, fitted together from the rooms that do it: a held VF (held-vf.ts) gets
// vfio-pci, its PF the client's settings, and access lets the containers of one pod open its nodes. On the way back it is
// nobody else's before that is taken away and whoever had it open has closed it.
import type { DeviceAccess, DeviceGrant } from "../access/index.ts";
import type { Clock, Random } from "../async/index.ts";
import type { Inventory, VfRecord } from "../inventory/index.ts";
import { LentSettings } from "../netdev/index.ts";
import type { PfDoor } from "../node/index.ts";
import type { AskedVfio, VfioAsk, VfioVf, VfioVfSource } from "../nsm/index.ts";
import { type DriverBinder, DriverError, type PciAddress, type VfioDevice } from "../pci/index.ts";
import type { Log } from "../telemetry/index.ts";
import type { VfJournal } from "./connection-journal.ts";
import type { HeldVf, VfHolds } from "./held-vf.ts";
import type { TokenPod, TokenPods } from "./token-pods.ts";
import { type AdoptedGrant, type AdoptedGrants, VfioEntry } from "./vfio-entry.ts";

/**
 * So long a Close waits for a process that has the VF open; then it fails, and is tried again until the process has
 * gone. The kernel tells nobody when a group is closed, so it is looked at, ever more seldom.
 */
const HOLDER_WAIT_MS = 2_000;
const FIRST_LOOK_MS = 10;

/** The rooms' parts. */
export interface VfioVfParts {
  readonly holds: VfHolds;
  readonly inventory: Inventory;
  readonly binder: DriverBinder;
  readonly access: DeviceAccess;
  readonly pods: TokenPods;
  readonly pfDoor: (pf: PciAddress) => PfDoor;
  readonly journal: Pick<VfJournal, "keepVf">;
  readonly grants: AdoptedGrants;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
}

/** VFs of this node for the VFIO mechanism. */
export function vfioVfSource(parts: VfioVfParts): VfioVfSource {
  const { holds, pods, grants } = parts;
  const take = ({ connectionId, tokenId, cgroupDir }: VfioAsk, pod: TokenPod | undefined) => {
    const held = holds.take({ connectionId, tokenId, use: "vfio", ...(pod && { owner: pod.uid }) });
    return new NodeVfio(parts, held, { pod, cgroupDir });
  };
  return {
    take: async (ask) => take(ask, await pods.podOf(ask.tokenId)),
    adopt(ask) {
      const vf = take(ask, undefined);
      const left = grants.take(ask.connectionId);
      if (left?.entry.kept.address === vf.address) vf.resume(left);
      return vf;
    },
  };
}

interface VfioClient {
  readonly pod: TokenPod | undefined;
  readonly cgroupDir: string;
}

/** One VF, from the moment a connection holds it until it is given back. */
class NodeVfio implements VfioVf {
  readonly #parts: VfioVfParts;
  readonly #held: HeldVf;
  #pod: TokenPod | undefined;
  #cgroupDir: string;
  #entry: VfioEntry | undefined;
  #settings: LentSettings | undefined;
  #grant: DeviceGrant | undefined;
  #device: VfioDevice | undefined;

  constructor(parts: VfioVfParts, held: HeldVf, client: VfioClient) {
    this.#parts = parts;
    this.#held = held;
    this.#pod = client.pod;
    this.#cgroupDir = client.cgroupDir;
  }

  get address(): PciAddress {
    return this.#held.address;
  }

  get numbers(): VfioDevice | undefined {
    return this.#device;
  }

  /** The previous instance has given it to the pod, or had begun to. */
  resume({ entry, grant }: AdoptedGrant): void {
    const { owner } = entry.kept;
    this.#pod = owner === undefined ? undefined : { uid: owner, container: "" };
    this.#entry = entry;
    this.#grant = grant;
  }

  async bind(signal: AbortSignal): Promise<void> {
    this.#device = await this.#held.bind(signal, async (address) => {
      const device = await this.#parts.binder.vfio.deviceOf(address);
      // The pod's own process may have the group open by another VF of it; nobody else may.
      if (!this.#sharesGroup(device.group)) await this.#parts.binder.vfio.refuseOpen(address);
      return device;
    });
    // Before the endpoint is asked: a cgroup that is not the pod's costs nobody anything.
    this.#grant = this.#open(this.#cgroupDir);
  }

  async grant(asked: AskedVfio, signal: AbortSignal): Promise<void> {
    this.#device = await this.#parts.binder.vfio.deviceOf(this.address);
    const grant = await this.#grantFor(asked.cgroupDir);
    // First the settings: with the first frame that the pod can send they hold.
    await this.#lent().apply(asked, signal);
    await grant.apply(signal);
    this.#held.setReady();
  }

  /** The grant that stands goes on unless it is for other devices or other containers. */
  async #grantFor(cgroupDir: string): Promise<DeviceGrant> {
    const standing = this.#grant;
    if (standing && cgroupDir === this.#cgroupDir && isFor(standing, this.#device)) return standing;
    const grant = this.#open(cgroupDir);
    await standing?.revoke();
    this.#grant = grant;
    this.#cgroupDir = cgroupDir;
    return grant;
  }

  async stands(asked: AskedVfio): Promise<boolean> {
    const device = await this.#parts.binder.vfio.deviceOf(this.address);
    this.#device = device;
    const grant = this.#grant;
    if (!grant || asked.cgroupDir !== this.#cgroupDir || !isFor(grant, device)) return false;
    return (await grant.stands()) && (await this.#lent().stands(asked));
  }

  async revoke(): Promise<void> {
    this.#held.setReclaiming();
    await this.#grant?.revoke();
    // What was never granted nobody has open, but perhaps its pod another VF of the group.
    if (this.#entry?.kept.grant) await this.#untilClosed();
    // Not earlier: as long as the pod can send, its settings stay.
    if (this.#entry && (await this.#parts.binder.isPresent(this.address))) await this.#lent().restore();
    this.#grant = undefined;
    this.#settings = undefined;
    this.#entry = undefined;
  }

  async giveBack(): Promise<void> {
    this.#held.giveBack();
  }

  letGo(): void {
    this.#grant?.letGo();
  }

  /** A grant that is not applied yet. */
  #open(cgroupDir: string): DeviceGrant {
    const { access } = this.#parts;
    const { connectionId } = this.#held.ask;
    const device = this.#device;
    if (!device) throw new Error(`${this.address} is granted before it is bound`);
    const record = this.#kept().keepGrant;
    const pod = this.#pod && { uid: this.#pod.uid };
    const devices = [device.container, device.device];
    const grant = access.open({ connectionId, pod, cgroupDir, devices, record });
    return grant;
  }

  #lent(): LentSettings {
    if (this.#settings) return this.#settings;
    const { pfDoor, clock, random, log } = this.#parts;
    const { pf, index } = this.#held.vf;
    const entry = this.#kept();
    const vf = { ...pfDoor(pf), index };
    this.#settings = new LentSettings({ vf, before: entry.kept.before, record: entry.keepBefore, clock, random, log });
    return this.#settings;
  }

  #kept(): VfioEntry {
    const { connectionId, tokenId } = this.#held.ask;
    this.#entry ??= new VfioEntry(this.#parts.journal, {
      use: "vfio",
      address: this.address,
      connectionId,
      tokenId,
      owner: this.#pod?.uid,
      grant: undefined,
      before: {},
    });
    return this.#entry;
  }

  #sharesGroup(group: number): boolean {
    return this.#othersIn(group).length > 0;
  }

  /** VFs of the group that connections have by VFIO: the group is one pod's, so they are of the same one. */
  #othersIn(group: number): readonly VfRecord[] {
    const all = this.#parts.inventory.snapshot().filter((vf) => vf.iommuGroup === group && vf.address !== this.address);
    return all.filter(({ use }) => use === "vfio");
  }

  /** Resolves when nobody has the group open. @throws {DriverError} group-open. */
  async #untilClosed(): Promise<void> {
    const { binder, clock } = this.#parts;
    const endMs = clock.monotonicMs() + HOLDER_WAIT_MS;
    for (let waitMs = FIRST_LOOK_MS; ; waitMs *= 2) {
      try {
        return await binder.vfio.refuseOpen(this.address);
      } catch (error) {
        const leftMs = endMs - clock.monotonicMs();
        if (!(error instanceof DriverError) || leftMs <= 0) throw error;
        const { fault } = error;
        const other = fault.kind === "group-open" && this.#othersIn(fault.group).find(({ state }) => state === "ready");
        // It may stay open for as long as that one stands: whoever waits here would wait for nothing.
        if (other) throw new DriverError(this.address, { ...fault, besides: other.address }, { cause: error });
        await clock.sleep(Math.min(waitMs, leftMs));
      }
    }
  }
}

function isFor({ state }: DeviceGrant, device: VfioDevice | undefined): boolean {
  const text = (one: { readonly major: number; readonly minor: number }) => `${one.major}:${one.minor}`;
  const wanted = device ? [device.container, device.device].map(text) : [];
  return state.devices.map(text).join() === wanted.join();
}
