import type { Clock } from "../async/index.ts";
import { codeOf, type DeviceNumber, type DeviceUse, type HostFiles, type UeventSource } from "../kernel/index.ts";
import type { PciAddress } from "./address.ts";
import { DriverError } from "./driver-fault.ts";
import { iommuGroupOf, orMissing } from "./read-sysfs.ts";
import { isAbout, waitForUevent } from "./uevent-wait.ts";

/** What VFIO groups are read through. */
interface VfioGroupsOptions {
  /** /sys/bus/pci/devices */
  readonly devices: HostFiles;
  /** /dev/vfio */
  readonly vfio: HostFiles;
  readonly uevents: UeventSource;
  readonly clock: Clock;
  /** For the node of a group to appear; 10 s by default. */
  readonly waitLimitMs?: number;
}

/** The device nodes by which a client reaches a VF. Numbers of a group may change with each binding. */
export interface VfioDevice {
  readonly group: number;
  /** /dev/vfio/vfio */
  readonly container: DeviceNumber;
  /** /dev/vfio/<group> */
  readonly device: DeviceNumber;
}

/** The nodes of /dev/vfio. Changes nothing. */
export class VfioGroups {
  readonly #options: VfioGroupsOptions;

  constructor(options: VfioGroupsOptions) {
    this.#options = options;
  }

  /** Resolves when the group's node is there. @throws {DriverError} no-vfio-node, or the signal's reason. */
  async appears(address: PciAddress, group: number, signal?: AbortSignal): Promise<void> {
    const found = await waitForUevent(
      {
        what: `/dev/vfio/${group}`,
        observe: async () => (await this.#options.vfio.exists(String(group))) || undefined,
        concerns: (event) => event.subsystem === "vfio" || isAbout(event, address),
        limitMs: this.#options.waitLimitMs ?? 10_000,
        signal,
      },
      this.#options,
    );
    if (!found) throw new DriverError(address, { kind: "no-vfio-node", group });
  }

  /** @throws {DriverError} no-iommu, no-vfio-node, no-vfio-container. */
  async deviceOf(address: PciAddress): Promise<VfioDevice> {
    const { devices, vfio } = this.#options;
    const group = await iommuGroupOf(devices, address);
    if (group === undefined) throw new DriverError(address, { kind: "no-iommu" });
    const [container, device] = await Promise.all(
      ["vfio", String(group)].map((name) => orMissing(vfio.deviceNumber(name))),
    );
    if (!device) throw new DriverError(address, { kind: "no-vfio-node", group });
    if (!container) throw new DriverError(address, { kind: "no-vfio-container" });
    return { group, container, device };
  }

  /** @throws {DriverError} group-open while a process has the VF's group open; group-unreadable where we may not check. */
  async refuseOpen(address: PciAddress): Promise<void> {
    const group = await iommuGroupOf(this.#options.devices, address);
    if (group === undefined) return;
    const use = await this.#heldBy(address, group);
    if (use) throw new DriverError(address, { kind: "group-open", group, ...use });
  }

  async #heldBy(address: PciAddress, group: number): Promise<DeviceUse | undefined> {
    try {
      return await this.#options.vfio.heldBy(String(group));
    } catch (error) {
      // The device cgroup of a container that is not privileged.
      const code = codeOf(error);
      if (code !== "EPERM" && code !== "EACCES") throw error;
      throw new DriverError(address, { kind: "group-unreadable", group, code }, { cause: error });
    }
  }
}
