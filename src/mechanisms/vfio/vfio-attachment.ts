// A VF as a VFIO device of one pod: a held VF (held-vf.ts) gets vfio-pci, its PF the client's settings, and access lets the containers
// of the pod open its nodes. On the way back no other client gets it before that is revoked and each process that had it open has
// closed it.
import type { DeviceAccess, DeviceGrant } from "../../access/index.ts";
import type { Clock, Random } from "../../async/index.ts";
import type { ConnectionContext } from "../../gen/connectioncontext_pb.ts";
import type { Inventory, VfRecord } from "../../inventory/index.ts";
import type { PodsOfTokens, TokenPod } from "../../kubelet/index.ts";
import { BorrowedSettings, type RequestedSettings } from "../../netdev/index.ts";
import type { PfDoor } from "../../node/index.ts";
import {
  type Attachment,
  type DesiredMechanism,
  type DesiredVfio,
  type MechanismDriver,
  type MechanismRequest,
  PARAMETER,
} from "../../nsm/index.ts";
import { type DriverBinder, DriverError, type PciAddress, type VfioDevice } from "../../pci/index.ts";
import type { Log } from "../../telemetry/index.ts";
import type { VfJournal } from "../connection-journal.ts";
import type { HeldVf, VfHolds } from "../held-vf.ts";
import { type AdoptedGrants, VfioEntry } from "./vfio-entry.ts";

/**
 * So long a Close waits for a process that has the VF open; then it fails, and is tried again until the process has
 * gone. The kernel sends no event when a group is closed, so it is polled, ever less often.
 */
const HOLDER_WAIT_MS = 2_000;
const FIRST_LOOK_MS = 10;

/** What VFIO takes of the modules below. */
export interface VfioParts {
  readonly holds: VfHolds;
  readonly inventory: Inventory;
  readonly binder: DriverBinder;
  readonly access: DeviceAccess;
  readonly pods: Pick<PodsOfTokens, "podOf">;
  readonly pfDoor: (pf: PciAddress) => PfDoor;
  readonly journal: Pick<VfJournal, "keepVf">;
  readonly grants: AdoptedGrants;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
}

/** Gives clients a VF as a VFIO device that only their pod may open: the original's resourcepool and vfio. */
export function vfioDriver(parts: VfioParts): MechanismDriver<DesiredVfio> {
  const { holds, pods, grants } = parts;
  const take = ({ connectionId, desired }: MechanismRequest<DesiredVfio>, pod: TokenPod | undefined) => {
    const owner = pod && { owner: pod.uid };
    const held = holds.take({ connectionId, tokenId: desired.tokenId, use: "vfio", ...owner });
    return new VfioAttachment(parts, held, { pod, desired });
  };
  return {
    open: async (ask) => take(ask, await pods.podOf(ask.desired.tokenId)),
    adopt(ask) {
      const attachment = take(ask, undefined);
      attachment.resume(grants);
      return attachment;
    },
  };
}

class VfioAttachment implements Attachment {
  readonly #parts: VfioParts;
  readonly #held: HeldVf;
  #desired: DesiredVfio;
  #pod: TokenPod | undefined;
  #cgroupDir: string;
  #entry: VfioEntry | undefined;
  #settings: BorrowedSettings | undefined;
  #grant: DeviceGrant | undefined;
  #device: VfioDevice | undefined;
  #isReleased = false;

  constructor(
    parts: VfioParts,
    held: HeldVf,
    { pod, desired }: { readonly pod: TokenPod | undefined; readonly desired: DesiredVfio },
  ) {
    this.#parts = parts;
    this.#held = held;
    this.#pod = pod;
    this.#desired = desired;
    this.#cgroupDir = desired.cgroupDir;
  }

  get parameters(): Readonly<Record<string, string>> {
    const address = { [PARAMETER.pciAddress]: this.#address };
    if (!this.#device) return address;
    const { group, container, device } = this.#device;
    return {
      ...address,
      [PARAMETER.iommuGroup]: String(group),
      [PARAMETER.vfioMajor]: String(container.major),
      [PARAMETER.vfioMinor]: String(container.minor),
      [PARAMETER.deviceMajor]: String(device.major),
      [PARAMETER.deviceMinor]: String(device.minor),
    };
  }

  /** The previous instance has given it to the pod, or had begun to. */
  resume(grants: AdoptedGrants): void {
    const left = grants.take({ connectionId: this.#held.request.connectionId, address: this.#address });
    if (!left) return;
    const { entry, grant } = left;
    const { owner } = entry.kept;
    this.#pod = owner === undefined ? undefined : { uid: owner, container: "" };
    this.#entry = entry;
    this.#grant = grant;
  }

  canServe(desired: DesiredMechanism): boolean {
    return desired.type === "VFIO" && desired.tokenId === this.#desired.tokenId && !this.#isReleased;
  }

  async prepare({ signal }: MechanismRequest): Promise<void> {
    this.#device = await this.#held.bind(signal, async (address) => {
      const device = await this.#parts.binder.vfio.deviceOf(address);
      // The pod's own process may have the group open by another VF of it; no other may.
      if (this.#othersIn(device.group).length === 0) await this.#parts.binder.vfio.refuseOpen(address);
      return device;
    });
    // Before the endpoint gets the Request: a cgroup that is not the pod's must cost no other peer anything.
    this.#grant = this.#open(this.#cgroupDir);
  }

  async apply({ desired, signal }: MechanismRequest, context: ConnectionContext | undefined): Promise<void> {
    if (desired.type !== "VFIO") throw new Error(`The VFIO mechanism was asked for ${desired.type}`);
    this.#device = await this.#parts.binder.vfio.deviceOf(this.#address);
    const grant = await this.#grantFor(desired.cgroupDir);
    // First the settings: with the first frame that the pod can send they hold.
    await this.#borrowedSettings().apply(requestedSettings(context), signal);
    await grant.apply(signal);
    this.#held.setReady();
    this.#desired = desired;
  }

  async isInForce(context: ConnectionContext | undefined): Promise<boolean> {
    this.#device = await this.#parts.binder.vfio.deviceOf(this.#address);
    const grant = this.#grant;
    if (!grant || this.#desired.cgroupDir !== this.#cgroupDir || !isFor(grant, this.#device)) return false;
    return (await grant.isInForce()) && (await this.#borrowedSettings().isInForce(requestedSettings(context)));
  }

  async receiveFiles(): Promise<void> {}

  /** @throws when access is in force, or a process still has it open: no other client may have it then, and this is tried again. */
  async release(): Promise<void> {
    if (this.#isReleased) return;
    this.#held.setReclaiming();
    await this.#grant?.revoke();
    // What was never granted no process has open, but perhaps its pod another VF of the group.
    if (this.#entry?.kept.grant) await this.#untilClosed();
    // Not earlier: as long as the pod can send, its settings stay.
    if (this.#entry && (await this.#parts.binder.isPresent(this.#address))) await this.#borrowedSettings().restore();
    this.#grant = undefined;
    this.#settings = undefined;
    this.#entry = undefined;
    this.#held.giveBack();
    this.#isReleased = true;
  }

  close(): void {
    this.#grant?.letGo();
  }

  get #address(): PciAddress {
    return this.#held.address;
  }

  /** The grant that is in force continues unless it is for other devices or other containers. */
  async #grantFor(cgroupDir: string): Promise<DeviceGrant> {
    const former = this.#grant;
    if (former && cgroupDir === this.#cgroupDir && isFor(former, this.#device)) return former;
    const grant = this.#open(cgroupDir);
    await former?.revoke();
    this.#grant = grant;
    this.#cgroupDir = cgroupDir;
    return grant;
  }

  /** A grant that is not applied yet. */
  #open(cgroupDir: string): DeviceGrant {
    const device = this.#device;
    if (!device) throw new Error(`${this.#address} is granted before it is bound`);
    const { connectionId } = this.#held.request;
    const pod = this.#pod && { uid: this.#pod.uid };
    const devices = [device.container, device.device];
    return this.#parts.access.open({ connectionId, pod, cgroupDir, devices, record: this.#kept().keepGrant });
  }

  #borrowedSettings(): BorrowedSettings {
    if (this.#settings) return this.#settings;
    const { pfDoor, clock, random, log } = this.#parts;
    const { pf, index } = this.#held.vf;
    const entry = this.#kept();
    const vf = { ...pfDoor(pf), index };
    this.#settings = new BorrowedSettings({
      vf,
      before: entry.kept.before,
      record: entry.keepBefore,
      clock,
      random,
      log,
    });
    return this.#settings;
  }

  #kept(): VfioEntry {
    const { connectionId, tokenId } = this.#held.request;
    this.#entry ??= new VfioEntry(this.#parts.journal, {
      use: "vfio",
      address: this.#address,
      connectionId,
      tokenId,
      owner: this.#pod?.uid,
      grant: undefined,
      before: {},
    });
    return this.#entry;
  }

  /** VFs of the group that connections have by VFIO: the group is one pod's, so they are of the same one. */
  #othersIn(group: number): readonly VfRecord[] {
    const all = this.#parts.inventory
      .snapshot()
      .filter((vf) => vf.iommuGroup === group && vf.address !== this.#address);
    return all.filter(({ use }) => use === "vfio");
  }

  /** Resolves when no process has the group open. @throws {DriverError} group-open. */
  async #untilClosed(): Promise<void> {
    const { binder, clock } = this.#parts;
    const endMs = clock.monotonicMs() + HOLDER_WAIT_MS;
    for (let waitMs = FIRST_LOOK_MS; ; waitMs *= 2) {
      try {
        return await binder.vfio.refuseOpen(this.#address);
      } catch (error) {
        const leftMs = endMs - clock.monotonicMs();
        if (!(error instanceof DriverError) || leftMs <= 0) throw error;
        const { fault } = error;
        const other = fault.kind === "group-open" && this.#othersIn(fault.group).find(({ state }) => state === "ready");
        // It may stay open for as long as that one is established: to wait here would be for nothing.
        if (other) throw new DriverError(this.#address, { ...fault, besides: other.address }, { cause: error });
        await clock.sleep(Math.min(waitMs, leftMs));
      }
    }
  }
}

/** The client is the source side: sriov-behaviour §6.2, step 7. */
function requestedSettings(context: ConnectionContext | undefined): RequestedSettings {
  const { srcMac = "", vlanTag = 0 } = context?.ethernetContext ?? {};
  return { mac: srcMac, vlan: vlanTag };
}

function isFor({ state }: DeviceGrant, device: VfioDevice | undefined): boolean {
  const text = (one: { readonly major: number; readonly minor: number }) => `${one.major}:${one.minor}`;
  const desired = device ? [device.container, device.device].map(text) : [];
  return state.devices.map(text).join() === desired.join();
}
