import { KeyedQueue } from "../../src/async/index.ts";
import { Errno, KernelError, type Uevent } from "../../src/kernel/index.ts";

import type { EswitchMode } from "./card.ts";

/** How PCI functions are put into IOMMU groups. */
export type IommuLayout =
  /** Each virtual function in a group of its own. */
  | "per-vf"
  /** Two virtual functions of one physical one share a group. */
  | "pairs"
  /** No ACS above the adapter: the physical function and all its virtual ones share a group. */
  | "with-pf"
  | "none";

/** A PCI function of the pretend machine. */
export interface NicFunction {
  readonly address: string;
  /** One that is made again is another one. */
  readonly inode: bigint;
  /** The physical function and N of `virtfnN`; undefined for a physical one. */
  readonly virtual: { readonly pf: NicPf; readonly index: number } | undefined;
  iommuGroup: number | undefined;
  readonly numaNode: number;
  /** The driver whose table of ids names the PCI function. */
  readonly nativeDriver: string;
  driver: string | undefined;
  override: string | undefined;
}

/** A physical function. */
export interface NicPf extends NicFunction {
  readonly totalVfs: number;
  /** By index; empty until they are made. */
  readonly vfs: NicFunction[];
  autoprobe: boolean;
  eswitchMode: EswitchMode;
}

/** What makes and removes network devices when a kernel driver comes and goes. */
export interface NetdevMaker {
  /** Whether the PCI function has one, in any namespace. */
  has(fn: NicFunction): boolean;
  plug(fn: NicFunction): Promise<{ readonly ifname: string }>;
  /** The name it had, where the host's namespace could see it. */
  unplug(fn: NicFunction): Promise<{ readonly ifname: string | undefined }>;
}

export interface NicOptions {
  readonly netdevs: NetdevMaker;
  readonly emit: (event: Uevent) => void;
  readonly iommu: IommuLayout;
  /** Waits between the bind and the network device, for drivers that ask the physical function first; 0 means it is there at once. */
  readonly netdevDelay: () => Promise<void> | undefined;
}

const VFIO_DRIVER = "vfio-pci";

/**
 * The PCI side of a kernel with SR-IOV adapters: it answers writes with the errors that a real one gives, and sends the
 * events in a real one's order. See test/contracts/driver-binding.ts for what is known to be alike.
 */
export class Nic {
  readonly pfs: NicPf[] = [];
  readonly functions = new Map<string, NicFunction>();
  readonly drivers: Set<string>;
  readonly #options: NicOptions;
  /** The kernel's device lock. */
  readonly #locks = new KeyedQueue<string>();
  readonly #minors = new Map<number, number>();
  readonly #open = new Map<number, PromiseWithResolvers<void>>();
  #nextGroup = 1;
  #nextInode = 1n;

  constructor(drivers: readonly string[], options: NicOptions) {
    this.drivers = new Set(drivers);
    this.#options = options;
  }

  addPf(pf: {
    readonly bus: number;
    readonly numaNode: number;
    readonly totalVfs: number;
    readonly nativeDriver: string;
  }): NicPf {
    const { bus, ...rest } = pf;
    const address = `0000:${hex(bus, 2)}:00.0`;
    const iommuGroup = this.#options.iommu === "none" ? undefined : this.#nextGroup++;
    const unbound = { driver: undefined, override: undefined };
    const made: NicPf = {
      ...rest,
      ...unbound,
      address,
      inode: this.#nextInode++,
      virtual: undefined,
      iommuGroup,
      vfs: [],
      autoprobe: true,
      eswitchMode: "legacy",
    };
    this.pfs.push(made);
    this.functions.set(address, made);
    return made;
  }

  /** Whether the driver would take the PCI function: its override alone decides where there is one. */
  #isMatch(driver: string, fn: NicFunction): boolean {
    return fn.override === undefined ? fn.nativeDriver === driver : fn.override === driver;
  }

  /** The `bind` file of a driver. */
  async bind(driver: string, address: string): Promise<void> {
    const fn = this.functions.get(address);
    if (!fn || !this.#isMatch(driver, fn)) throw refuse(`bind ${address} to ${driver}`, "ENODEV");
    // pci_device_can_probe: without autoprobe only an override lets a virtual function be probed at all.
    if (fn.virtual && !fn.virtual.pf.autoprobe && fn.override === undefined) {
      throw refuse(`bind ${address} to ${driver}`, "ENODEV");
    }
    await this.#locks.run(address, async () => {
      if (fn.driver !== undefined) throw refuse(`bind ${address} to ${driver}`, "EBUSY");
      await this.#probe(driver, fn);
    });
  }

  /** The `unbind` file of a driver; under VFIO it does not return while a process has the group open. */
  async unbind(driver: string, address: string): Promise<void> {
    const fn = this.functions.get(address);
    if (fn?.driver !== driver) throw refuse(`unbind ${address} from ${driver}`, "ENODEV");
    await this.#locks.run(address, () => this.#remove(fn));
  }

  async #probe(driver: string, fn: NicFunction): Promise<void> {
    if (driver === VFIO_DRIVER) {
      const group = fn.iommuGroup;
      if (group === undefined) throw refuse(`bind ${fn.address} to ${driver}`, "EINVAL");
      fn.driver = driver;
      if (!this.#minors.has(group)) {
        this.#minors.set(group, lowestFree(this.#minors.values()));
        this.#emit("add", "vfio", `/devices/virtual/vfio/${group}`, { DEVNAME: `vfio/${group}` });
      }
    } else {
      fn.driver = driver;
      const delay = this.#options.netdevDelay();
      if (delay) void delay.then(() => (fn.driver === driver ? this.#plug(fn) : undefined));
      else await this.#plug(fn);
    }
    this.#emit("bind", "pci", devpathOf(fn), { DRIVER: driver, PCI_SLOT_NAME: fn.address });
  }

  async #plug(fn: NicFunction): Promise<void> {
    const { ifname } = await this.#options.netdevs.plug(fn);
    this.#emit("add", "net", `${devpathOf(fn)}/net/${ifname}`, { INTERFACE: ifname });
  }

  /** Its driver takes the network device away; the function it gives back makes another one, if the same driver is bound still. */
  async remakeNetdev(fn: NicFunction): Promise<() => Promise<void>> {
    const { driver } = fn;
    const isAway = await this.#locks.run(fn.address, async () => {
      if (driver === undefined || driver === VFIO_DRIVER) return false;
      await this.#unplug(fn);
      return true;
    });
    return () =>
      this.#locks.run(fn.address, async () => {
        if (isAway && fn.driver === driver && !this.#options.netdevs.has(fn)) await this.#plug(fn);
      });
  }

  async #unplug(fn: NicFunction): Promise<void> {
    const { ifname } = await this.#options.netdevs.unplug(fn);
    // A device that lives in a pod's namespace goes without a word to the host's.
    if (ifname !== undefined) this.#emit("remove", "net", `${devpathOf(fn)}/net/${ifname}`, { INTERFACE: ifname });
  }

  async #remove(fn: NicFunction): Promise<void> {
    const { driver, iommuGroup: group } = fn;
    if (driver === undefined) return;
    if (driver === VFIO_DRIVER && group !== undefined) {
      // The PCI function is without a driver at once; the rest waits for the process that has it open.
      fn.driver = undefined;
      await this.#open.get(group)?.promise;
      if (!this.members(group).some((other) => other.driver === VFIO_DRIVER)) {
        this.#minors.delete(group);
        this.#emit("remove", "vfio", `/devices/virtual/vfio/${group}`, { DEVNAME: `vfio/${group}` });
      }
    } else {
      fn.driver = undefined;
      await this.#unplug(fn);
    }
    this.#emit("unbind", "pci", devpathOf(fn), { DRIVER: driver, PCI_SLOT_NAME: fn.address });
  }

  /** `devlink dev eswitch set`: the network devices that stand for single virtual functions come, or go. */
  setEswitchMode(pf: NicPf, mode: EswitchMode): void {
    if (pf.eswitchMode === mode) return;
    pf.eswitchMode = mode;
    const action = mode === "switchdev" ? "add" : "remove";
    for (const { virtual } of pf.vfs) {
      const ifname = representorName(virtual?.index ?? 0);
      this.#emit(action, "net", `${devpathOf(pf)}/net/${ifname}`, { INTERFACE: ifname });
    }
  }

  /** The `sriov_numvfs` file. */
  async setNumVfs(pf: NicPf, count: number): Promise<void> {
    const op = `set sriov_numvfs of ${pf.address} to ${count}`;
    if (!Number.isInteger(count) || count < 0) throw refuse(op, "EINVAL");
    if (count > pf.totalVfs) throw refuse(op, "ERANGE");
    if (count === pf.vfs.length) return;
    if (pf.driver === undefined) throw refuse(op, "ENOENT");
    if (count === 0) return this.#removeVfs(pf);
    if (pf.vfs.length > 0) throw refuse(op, "EBUSY");
    for (let index = 0; index < count; index++) {
      const vf = this.#makeVf(pf, index);
      pf.vfs.push(vf);
      this.functions.set(vf.address, vf);
      this.#emit("add", "pci", devpathOf(vf), { PCI_SLOT_NAME: vf.address });
      if (pf.autoprobe && this.drivers.has(vf.nativeDriver)) await this.bind(vf.nativeDriver, vf.address);
    }
    this.#emit("change", "pci", devpathOf(pf), { NUM_VF: String(count) });
  }

  #makeVf(pf: NicPf, index: number): NicFunction {
    const { iommu } = this.#options;
    const before = pf.vfs[index - 1];
    const shared = iommu === "with-pf" ? pf.iommuGroup : index % 2 === 1 ? before?.iommuGroup : undefined;
    const isShared = iommu === "with-pf" || (iommu === "pairs" && shared !== undefined);
    const iommuGroup = iommu === "none" ? undefined : isShared ? shared : this.#nextGroup++;
    return {
      address: vfAddress(pf.address, index),
      inode: this.#nextInode++,
      virtual: { pf, index },
      iommuGroup,
      numaNode: pf.numaNode,
      nativeDriver: `${pf.nativeDriver}vf`,
      driver: undefined,
      override: undefined,
    };
  }

  async #removeVfs(pf: NicPf): Promise<void> {
    for (const vf of pf.vfs.toReversed()) {
      await this.#locks.run(vf.address, () => this.#remove(vf));
      this.functions.delete(vf.address);
      this.#emit("remove", "pci", devpathOf(vf), { PCI_SLOT_NAME: vf.address });
    }
    pf.vfs.length = 0;
  }

  /** Takes the adapter out of its slot. */
  async unplugPf(address: string): Promise<NicPf> {
    const pf = this.pfs.find((one) => one.address === address);
    if (!pf) throw refuse(`take out ${address}`, "ENODEV");
    for (const vf of pf.vfs) if (vf.iommuGroup !== undefined) this.#closeGroup(vf.iommuGroup);
    await this.#removeVfs(pf);
    await this.#locks.run(address, () => this.#remove(pf));
    this.pfs.splice(this.pfs.indexOf(pf), 1);
    this.functions.delete(address);
    this.#emit("remove", "pci", devpathOf(pf), { PCI_SLOT_NAME: address });
    return pf;
  }

  /** Puts it back, with its driver and without virtual functions. */
  async plugPf(pf: NicPf): Promise<void> {
    this.pfs.push(pf);
    this.functions.set(pf.address, pf);
    this.#emit("add", "pci", devpathOf(pf), { PCI_SLOT_NAME: pf.address });
    await this.bind(pf.nativeDriver, pf.address);
  }

  members(group: number): readonly NicFunction[] {
    return [...this.functions.values()].filter((fn) => fn.iommuGroup === group);
  }

  /** Takes a PCI function out of its group, of which the kernel sends no event. */
  loseGroup(address: string): void {
    const fn = this.functions.get(address);
    if (fn) fn.iommuGroup = undefined;
  }

  /** Groups that have a node, with its minor number. */
  get vfioGroups(): ReadonlyMap<number, number> {
    return this.#minors;
  }

  /**
   * Opens a VFIO group as a pod's process does, and keeps it open until the function it returns is called.
   * @throws {KernelError} ENODEV, EBUSY when it is open already, EPERM when the group is not viable.
   */
  openGroup(group: number): () => void {
    const op = `open /dev/vfio/${group}`;
    if (!this.#minors.has(group)) throw refuse(op, "ENODEV");
    if (this.#open.has(group)) throw refuse(op, "EBUSY");
    const viable = this.members(group).every(({ driver }) => driver === undefined || driver === VFIO_DRIVER);
    if (!viable) throw refuse(op, "EPERM");
    this.#open.set(group, Promise.withResolvers());
    return () => this.#closeGroup(group);
  }

  isOpen(group: number): boolean {
    return this.#open.has(group);
  }

  #closeGroup(group: number): void {
    this.#open.get(group)?.resolve();
    this.#open.delete(group);
  }

  #emit(action: string, subsystem: string, path: string, fields: Readonly<Record<string, string>>): void {
    this.#options.emit({
      action,
      subsystem,
      devpath: path,
      fields: { ...fields, ACTION: action, SUBSYSTEM: subsystem, DEVPATH: path },
    });
  }
}

/** The number of VFs, on the 82576 and here, begins at routing id 128 and goes up by 2: device numbers have gaps. */
const VF_OFFSET = 128;
const VF_STRIDE = 2;

function vfAddress(pf: string, index: number): string {
  const [domain = "", bus = ""] = pf.split(":");
  const rid = (Number.parseInt(bus, 16) << 8) + VF_OFFSET + index * VF_STRIDE;
  return `${domain}:${hex(rid >> 8, 2)}:${hex((rid >> 3) & 0x1f, 2)}.${rid & 7}`;
}

/** How many buses a physical function and its virtual ones take. */
export function busesOf(totalVfs: number): number {
  return Math.ceil((VF_OFFSET + totalVfs * VF_STRIDE) / 256);
}

/** Where the PCI function is beneath /sys, as events name it. */
export function devpathOf({ address }: NicFunction): string {
  return `/devices/pci0000:00/0000:00:01.0/${address}`;
}

/** As the kernel's own name of a network device that stands for a virtual function. */
export function representorName(index: number): string {
  return `rep${index}`;
}

function lowestFree(taken: Iterable<number>): number {
  const used = new Set(taken);
  let number = 0;
  while (used.has(number)) number++;
  return number;
}

function hex(value: number, digits: number): string {
  return value.toString(16).padStart(digits, "0");
}

function refuse(op: string, code: keyof typeof Errno): KernelError {
  return new KernelError(op, Errno[code]);
}
