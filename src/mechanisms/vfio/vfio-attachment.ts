// A VF as a VFIO device of one pod: a held VF (held-vf.ts) gets vfio-pci, its PF the client's settings, and access lets the containers
// of the pod open its nodes. On the way back no other client gets it before that is revoked and each process that had it open has
// closed it.
import type { DeviceAccess, DeviceGrant } from "../../access/index.ts";
import type { Clock, Random } from "../../async/index.ts";
import type { ConnectionContext } from "../../gen/connectioncontext_pb.ts";
import type { Inventory, VfRecord } from "../../inventory/index.ts";
import type { PodsOfTokens, TokenPod } from "../../kubelet/index.ts";
import { BorrowedSettings, type HostLinks, NO_MAC, type RequestedSettings, type VfLink } from "../../netdev/index.ts";
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
import { vfLinkOf } from "../netdev-parts.ts";
import { type FoundVfio, rulesOfOriginal, takeFoundVfio } from "./found-vf.ts";
import { type AdoptedGrants, VfioEntry } from "./vfio-entry.ts";

/**
 * So long a Close waits for a process that has the VF open; then it fails, and is tried again until the process has
 * gone. The kernel sends no event when a group is closed, so it is polled, ever less often.
 */
const HOLDER_WAIT_MS = 2_000;
const FIRST_CHECK_MS = 10;

/** What VFIO takes of the modules below. */
export interface VfioParts {
  readonly holds: VfHolds;
  readonly inventory: Inventory;
  readonly links: Pick<HostLinks, "settings">;
  readonly binder: DriverBinder;
  readonly access: DeviceAccess;
  readonly pods: Pick<PodsOfTokens, "podOf">;
  readonly pfDoor: (pf: PciAddress) => PfDoor;
  readonly journal: Pick<VfJournal, "keepVf" | "unrestored">;
  readonly grants: AdoptedGrants;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
}

/** Gives clients a VF as a VFIO device that only their pod may open: the original's resourcepool and vfio. */
export function vfioDriver(parts: VfioParts): MechanismDriver<DesiredVfio> {
  const { holds, pods, grants } = parts;
  const takeRequest = ({ connectionId, desired: { tokenId } }: MechanismRequest<DesiredVfio>) =>
    ({ connectionId, tokenId, use: "vfio" }) as const;
  return {
    async open(request) {
      const { desired, signal } = request;
      const pod = await pods.podOf(desired.tokenId);
      const found = takeFoundVfio(parts.inventory, pod, request);
      if (found) {
        const attachment = new VfioAttachment(parts, holds.take(takeRequest(request)), { pod, desired });
        attachment.resumeFound(found);
        parts.log.info("vf-found-with-client", { vf: found.vf.address, connection: request.connectionId });
        return attachment;
      }
      const held = await holds.takeSoon({ ...takeRequest(request), ...(pod && { owner: pod.uid }) }, signal);
      return new VfioAttachment(parts, held, { pod, desired });
    },
    adopt(request) {
      const attachment = new VfioAttachment(parts, holds.take(takeRequest(request)), {
        pod: undefined,
        desired: request.desired,
      });
      attachment.resume(grants);
      return attachment;
    },
  };
}

class VfioAttachment implements Attachment<DesiredVfio> {
  readonly #parts: VfioParts;
  readonly #held: HeldVf;
  /** Its pod had it before this connection, which is not established yet. */
  #found: FoundVfio | undefined;
  #desired: DesiredVfio;
  #pod: TokenPod | undefined;
  #cgroupDir: string;
  #entry: VfioEntry | undefined;
  #settings: BorrowedSettings | undefined;
  #grant: DeviceGrant | undefined;
  #device: VfioDevice | undefined;
  /** Which VF it was when it was bound. */
  #instance: string | undefined;
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

  /** Its pod may open it already; until its connection is established nothing that fails takes that away. */
  resumeFound(found: FoundVfio): void {
    this.#found = found;
  }

  canServe(desired: DesiredMechanism): boolean {
    return desired.type === "VFIO" && desired.tokenId === this.#desired.tokenId && !this.#isReleased;
  }

  async prepare({ signal }: MechanismRequest<DesiredVfio>): Promise<void> {
    this.#device = await this.#held.bind(signal, async (address) => {
      const device = await this.#parts.binder.vfio.deviceOf(address);
      // The pod's own process may have the group open, by this VF or by another one of it; no other may.
      if (!this.#found && this.#othersIn(device.group).length === 0) await this.#parts.binder.vfio.refuseOpen(address);
      return device;
    });
    this.#instance = await this.#vfLink.device();
    // Before the endpoint gets the Request: a cgroup that is not the pod's must cost no other peer anything.
    const grant = this.#open(this.#cgroupDir);
    this.#grant = this.#found ? await this.#takeOver(grant) : grant;
  }

  async apply(
    { desired, signal }: MechanismRequest<DesiredVfio>,
    context: ConnectionContext | undefined,
  ): Promise<void> {
    this.#device = await this.#parts.binder.vfio.deviceOf(this.#address);
    const grant = await this.#grantFor(desired.cgroupDir);
    // First the settings: with the first frame that the pod can send they hold.
    await this.#borrowedSettings().apply(requestedSettings(context), signal);
    await grant.apply(signal);
    this.#held.setReady();
    this.#found = undefined;
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
    if (this.#found) return this.#leaveAsFound(this.#found);
    await this.#grant?.revoke();
    // What was never granted no process has open, but perhaps its pod another VF of the group.
    if (this.#entry?.kept.grant) await this.#untilClosed();
    // Not earlier: as long as the pod can send, its settings stay.
    if (this.#entry && (await this.#parts.binder.isPresent(this.#address))) await this.#borrowedSettings().restore();
    this.#grant = undefined;
    this.#held.giveBack();
    this.#isReleased = true;
  }

  close(): void {
    this.#grant?.letGo();
  }

  /** The original's rules are as if we had written them: they are revoked with ours, and ours only where those are not enough. */
  async #takeOver(grant: DeviceGrant): Promise<DeviceGrant> {
    const { access } = this.#parts;
    const { keepGrant } = this.#kept();
    const { podUid: uid, devices } = grant.state;
    const state = { ...grant.state, wrote: await rulesOfOriginal(access, uid, devices) };
    await keepGrant(state);
    return access.adopt(state, keepGrant);
  }

  #leaveAsFound({ was }: FoundVfio): void {
    this.close();
    this.#grant = undefined;
    this.#held.leaveAsFound(was);
    this.#isReleased = true;
  }

  get #vfLink(): VfLink {
    const { binder, links } = this.#parts;
    return vfLinkOf(binder, this.#held.vf, links.settings?.boot);
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
    const { pfDoor, journal, clock, random, log } = this.#parts;
    const { pf, index } = this.#held.vf;
    const entry = this.#kept();
    const vf = { ...pfDoor(pf), index };
    this.#settings = new BorrowedSettings({
      vf,
      before: entry.kept.before,
      vfLink: this.#vfLink,
      device: entry.kept.device,
      chosenMac: journal.unrestored.chosenMacOf(this.#address),
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
      // What the PF had before the original's client is not known.
      before: this.#found ? { mac: NO_MAC, vlan: 0 } : {},
      ...(this.#instance !== undefined && { device: this.#instance }),
      ...(this.#found && { isFound: true as const }),
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
    for (let waitMs = FIRST_CHECK_MS; ; waitMs *= 2) {
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
