import { type Clock, KeyedQueue } from "../async/index.ts";
import { type HostFiles, KernelError, type UeventSource } from "../kernel/index.ts";
import { type Log, timed } from "../telemetry/index.ts";
import { isPciAddress, type PciAddress } from "./address.ts";
import type { VfFacts } from "./discover.ts";
import { DriverError } from "./driver-fault.ts";
import { DriverWrites, driverErrorOf, isTimeout } from "./driver-writes.ts";
import {
  driverOf,
  instanceOf,
  iommuGroupMembers,
  iommuGroupOf,
  netdevIndex,
  netdevNames,
  observeVf,
  type VfObservation,
} from "./read-sysfs.ts";
import { isAbout, waitForUevent } from "./uevent-wait.ts";
import { VfioGroups } from "./vfio-group.ts";

/** What a VF serves as: a network device, or a VFIO device that a pod opens itself. */
export type VfUse = "kernel" | "vfio";

const VFIO_DRIVER = "vfio-pci";

/** What the binder works on. */
export interface DriverBinderOptions {
  /** /sys/bus/pci/devices */
  readonly devices: HostFiles;
  /** /sys/bus/pci/drivers */
  readonly drivers: HostFiles;
  /** /dev/vfio */
  readonly vfio: HostFiles;
  readonly uevents: UeventSource;
  readonly clock: Clock;
  readonly log: Log;
  /** Whether a PCI function of an IOMMU group is a VF in our care. */
  readonly isManaged: (address: PciAddress) => boolean;
  /**
   * Called right before the driver of a VF is changed, which takes its network device away.
   * @throws {DriverError} when that must not be.
   */
  readonly refuseChange?: (address: PciAddress) => Promise<void>;
  /** The connection that a VF is bound for, for the log. */
  readonly connectionOf?: (address: PciAddress) => string | undefined;
  /** Called with every driver change; undefined when a failure left the VF without a driver. */
  readonly onBound?: (address: PciAddress, driver: string | undefined) => void;
  /** Called with every try to change a driver: of which kind the desired one is, how it ended, and how long it took. */
  readonly onTried?: (use: VfUse, outcome: "ok" | "failed", seconds: number) => void;
  /** For one write; 10 s by default. */
  readonly writeLimitMs?: number;
  /** For the network device or the VFIO node to appear; 10 s by default: drivers query the physical function first. */
  readonly waitLimitMs?: number;
}

/** A network device as this network namespace sees it. The name may change at once (udev): keep the index. */
interface VfNetdev {
  readonly ifname: string;
  readonly ifindex: number;
}

/** Binds virtual functions to drivers, one at a time within an IOMMU group, all groups at once. */
export class DriverBinder {
  /** The nodes that VFIO makes. */
  readonly vfio: VfioGroups;
  readonly #options: DriverBinderOptions;
  readonly #queue = new KeyedQueue<string>();
  readonly #writes: DriverWrites;
  readonly #changing = new Set<PciAddress>();
  #beforeVfio: (address: PciAddress) => Promise<void> = async () => {};

  constructor(options: DriverBinderOptions) {
    this.#options = options;
    this.#writes = new DriverWrites(options.writeLimitMs);
    this.vfio = new VfioGroups(options);
  }

  /**
   * Binds the VF to its kernel driver or to VFIO; nothing is written when it is bound already. Under VFIO the whole
   * group goes there, and the group's node is there on return. After a failure the former driver serves again.
   * @throws {DriverError}, at once as long as an earlier write hangs; or the signal's reason while it waits for its turn or the node.
   */
  bind(vf: Pick<VfFacts, "address" | "kernelDriver">, use: VfUse, signal?: AbortSignal): Promise<void> {
    const { address, kernelDriver } = vf;
    return this.#inTurn(address, signal, async (group) => {
      await this.#refuseOthers(address);
      if (use === "kernel") return this.#rebind(address, kernelDriver);
      if (group === undefined) throw new DriverError(address, { kind: "no-iommu" });
      await this.#bindGroup(address, group);
      await this.vfio.appears(address, group, signal);
    });
  }

  /** Calls back right before a VF goes from its kernel driver to VFIO, and waits for it: what that throws, the bind fails with. */
  beforeVfio(keep: (address: PciAddress) => Promise<void>): void {
    this.#beforeVfio = keep;
  }

  /**
   * Has the kernel driver make another network device of the VF, in whatever namespace the present one is: unbinds the VF and binds it again. One
   * without a driver is bound; one with another driver has no network device and is left.
   * @throws {DriverError}, at once as long as an earlier write hangs; or the signal's reason while it waits for its turn.
   */
  renew({ address, kernelDriver }: Pick<VfFacts, "address" | "kernelDriver">, signal?: AbortSignal): Promise<void> {
    return this.#inTurn(address, signal, async () => {
      await this.#refuseOthers(address);
      this.#refuseStuck(address, kernelDriver);
      const before = await this.driverOf(address);
      if (before === undefined || before === kernelDriver) await this.#changeCounted(address, kernelDriver, before);
    });
  }

  /**
   * The network device of the VF, as soon as its driver has made it.
   * @throws {DriverError} no-netdev when it does not come, or lives in another network namespace.
   */
  async netdevOf(address: PciAddress, signal?: AbortSignal): Promise<VfNetdev> {
    const found = await waitForUevent(
      {
        what: `network device of ${address}`,
        observe: () => this.netdevNow(address),
        concerns: (event) => isAbout(event, address),
        limitMs: this.#options.waitLimitMs ?? 10_000,
        signal,
      },
      this.#options,
    );
    if (!found) throw new DriverError(address, { kind: "no-netdev" });
    return found;
  }

  /** How many binds wait for another one of their IOMMU group. */
  get waiting(): number {
    return this.#queue.waiting;
  }

  /** Whether the node has the VF at all. */
  isPresent(address: PciAddress): Promise<boolean> {
    return this.#options.devices.exists(address);
  }

  /** Whether a write that changes its driver was given up and has not returned. */
  hasStuckWrite(address: PciAddress): boolean {
    return this.#writes.isStuck(address);
  }

  /** Tells one device from the next one that has the address. Undefined while there is none. */
  instanceOf(address: PciAddress): Promise<bigint | undefined> {
    return instanceOf(this.#options.devices, address);
  }

  /** Whether it is on its way to another driver, or to a new network device of the same. */
  isChanging(address: PciAddress): boolean {
    return this.#changing.has(address);
  }

  /** The driver that the VF is bound to now. */
  driverOf(address: PciAddress): Promise<string | undefined> {
    return driverOf(this.#options.devices, address);
  }

  /** What the node has of it now. */
  observeVf(address: PciAddress): Promise<VfObservation> {
    return observeVf(this.#options.devices, address);
  }

  async #inTurn<T>(
    address: PciAddress,
    signal: AbortSignal | undefined,
    job: (group: number | undefined) => Promise<T>,
  ): Promise<T> {
    const group = await iommuGroupOf(this.#options.devices, address);
    return this.#queue.run(group === undefined ? address : `group ${group}`, () => job(group), signal);
  }

  async #refuseOthers(address: PciAddress): Promise<void> {
    const { devices } = this.#options;
    if (await devices.exists(`${address}/physfn`)) return;
    const gone = !(await devices.exists(address));
    throw new DriverError(address, { kind: gone ? "gone" : "not-virtual" });
  }

  /** The driver that it has may be gone in the next moment. */
  #refuseStuck(address: PciAddress, driver: string): void {
    if (this.hasStuckWrite(address)) throw new DriverError(address, { kind: "write-stuck", driver });
  }

  async #bindGroup(address: PciAddress, group: number): Promise<void> {
    const { devices, isManaged } = this.#options;
    const members = await iommuGroupMembers(devices, address);
    const others = members.filter((member) => !isPciAddress(member) || !isManaged(member));
    if (others.length > 0) throw new DriverError(address, { kind: "group-shared", group, others });
    // The requested one first: when its driver refuses, its neighbours are left alone.
    for (const member of [address, ...members.filter(isPciAddress).filter((one) => one !== address)]) {
      if (member === address || (await this.driverOf(member)) !== undefined) await this.#rebind(member, VFIO_DRIVER);
    }
  }

  async #rebind(address: PciAddress, driver: string): Promise<void> {
    this.#refuseStuck(address, driver);
    const before = await this.driverOf(address);
    if (before !== driver) await this.#changeCounted(address, driver, before);
  }

  async #changeCounted(address: PciAddress, driver: string, before: string | undefined): Promise<void> {
    await this.#options.refuseChange?.(address);
    const { clock, onTried } = this.#options;
    const use = driver === VFIO_DRIVER ? "vfio" : "kernel";
    const report = (outcome: "ok" | "failed", seconds: number) => onTried?.(use, outcome, seconds);
    this.#changing.add(address);
    await timed(clock, report, () => this.#change(address, driver, before)).finally(() =>
      this.#changing.delete(address),
    );
  }

  async #change(address: PciAddress, driver: string, before: string | undefined): Promise<void> {
    const { drivers, log, clock, onBound, connectionOf } = this.#options;
    if (!(await drivers.exists(driver))) throw new DriverError(address, { kind: "driver-missing", driver });
    const startedAt = clock.monotonicMs();
    if (driver === VFIO_DRIVER && before !== undefined) await this.#beforeVfio(address);
    try {
      // The write that unbinds would not return.
      if (before === VFIO_DRIVER) await this.vfio.refuseOpen(address);
      await this.#override(address, driver);
      if (before !== undefined) await this.#unbind(address, before);
      await this.#bind(address, driver);
    } catch (error) {
      const fault = driverErrorOf(error, address, driver);
      // Another write would hang behind the one that is stuck.
      if (fault.fault.kind !== "write-stuck") await this.#goBack(address, before);
      onBound?.(address, await this.driverOf(address).catch(() => undefined));
      throw fault;
    }
    if (driver !== VFIO_DRIVER) await this.#tryTo("clear-override", address, () => this.#override(address, undefined));
    const tookMs = Math.round(clock.monotonicMs() - startedAt);
    log.info("driver-bound", { connection: connectionOf?.(address), vf: address, driver, before, tookMs });
    onBound?.(address, driver);
  }

  /** Names the only driver that may match the VF, bound or not; undefined lets the kernel choose again. */
  #override(address: PciAddress, driver: string | undefined): Promise<void> {
    return this.#writes.write(address, this.#options.devices, [`${address}/driver_override`, driver ?? "\n"]);
  }

  async #unbind(address: PciAddress, driver: string): Promise<void> {
    try {
      await this.#writes.write(address, this.#options.drivers, [`${driver}/unbind`, address]);
    } catch (error) {
      if (isTimeout(error) || (await this.driverOf(address)) === driver) {
        if (isTimeout(error)) throw error;
        const code = error instanceof KernelError ? error.code : String(error);
        throw new DriverError(address, { kind: "unbind-refused", driver, code }, { cause: error });
      }
      // It is unbound: another process was faster.
    }
  }

  /** The link decides: the write can report an error for a VF that was bound, and none for one that was not. */
  async #bind(address: PciAddress, driver: string): Promise<void> {
    let failure: unknown;
    try {
      await this.#writes.write(address, this.#options.drivers, [`${driver}/bind`, address]);
    } catch (error) {
      if (isTimeout(error)) throw error;
      failure = error;
    }
    if ((await this.driverOf(address)) === driver) return;
    const code = failure instanceof KernelError ? failure.code : "";
    throw new DriverError(address, { kind: "bind-refused", driver, code }, { cause: failure });
  }

  async #goBack(address: PciAddress, before: string | undefined): Promise<void> {
    await this.#tryTo("restore-driver", address, async () => {
      await this.#override(address, before);
      if (before !== undefined && (await this.driverOf(address)) !== before) await this.#bind(address, before);
      if (before !== undefined && before !== VFIO_DRIVER) await this.#override(address, undefined);
    });
  }

  async #tryTo(what: string, address: PciAddress, act: () => Promise<void>): Promise<void> {
    try {
      await act();
    } catch (error) {
      this.#options.log.warn("driver-not-restored", { vf: address, what, error: String(error) });
    }
  }

  /** The network device of the VF, where the host's namespace has it now. @throws {DriverError} several-netdevs. */
  async netdevNow(address: PciAddress): Promise<VfNetdev | undefined> {
    const { devices } = this.#options;
    const names = await netdevNames(devices, address);
    if (names.length > 1) throw new DriverError(address, { kind: "several-netdevs", names });
    const [ifname] = names;
    if (ifname === undefined) return undefined;
    // Renamed between the two reads: the event of the renaming brings us here again.
    const ifindex = await netdevIndex(devices, address, ifname);
    return ifindex === undefined ? undefined : { ifname, ifindex };
  }
}
