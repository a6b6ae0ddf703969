// The outside of the process: the real node, or the sandbox's pretend one.
import type { DeviceAccess, DeviceAccessOptions } from "../access/index.ts";
import type { Clock, Random } from "../async/index.ts";
import type {
  BorrowedFd,
  Disk,
  EswitchMode,
  ExclusiveLock,
  FolderLockOptions,
  HostFiles,
  LinkOwnerOf,
  Netns,
  Rtnl,
  UeventSource,
  WatchedFolder,
} from "../kernel/index.ts";
import type { PfName, PfPort, SettingsDoor } from "../netdev/index.ts";
import type { FindPfLink, PciAddress } from "../pci/index.ts";

/** Everything of the node that the forwarder touches, apart from sockets. The caller closes what it opened. */
export interface Host {
  /** /sys/bus/pci/devices */
  readonly devices: HostFiles;
  /** /sys/bus/pci/drivers */
  readonly drivers: HostFiles;
  /** /dev/vfio */
  readonly vfio: HostFiles;
  readonly uevents: UeventSource;
  /** Where PFs and idle VFs have their network devices. */
  readonly netns: Netns;
  /** Links, addresses, routes, rules and neighbours of a namespace, the host's or a client's. Closed by who opens it. */
  openRtnl(netns: Netns): Rtnl;
  /** The namespace that a client has passed; the descriptor stays the caller's. @throws {NotANetnsError} */
  netnsOf(fd: BorrowedFd): Netns;
  /** Paths of the unix sockets that processes listen on, as the host's namespace has them. */
  unixListeners(): readonly string[];
  /** Says of any link, in any namespace, which PCI function it sits on: queried before the link is written to. */
  readonly linkOwnerOf: LinkOwnerOf;
  /** Everything that can be set of a link besides what `openRtnl` sets. */
  readonly linkSettings: SettingsDoor;
  /**
   * The link of a PF in `netns`, found and verified at each call: to be written to over the same socket. Undefined where it has
   * none there. @throws {PfError} where sysfs names a link that is not the PF's.
   */
  readonly pfLink: FindPfLink;
  readonly locks: HostLocks;
  /** How a PF forwards; undefined where the kernel does not say. @throws {KernelError} */
  queryEswitchMode(pf: string): Promise<EswitchMode | undefined>;
  /** Where what outlives the process is kept. */
  readonly disk: Disk;
  /** The files of a folder that is shared with others of the host: kubelet's. */
  openFolder(path: string): HostFiles;
  /** Reports what is made and removed there. Closed by who opens it. */
  watchFolder(path: string, clock: Clock): WatchedFolder;
  /** What cannot be guessed. */
  readonly random: Random;
  /** The settings of the VFs of a PF. */
  pfPort(pf: PfName & { readonly address: PciAddress }): PfPort;
  /** Which devices pods may open; opened at the start, closed by who opens it. @throws {AccessError} no-hierarchy. */
  openAccess(parts: Omit<DeviceAccessOptions, "cgroupPath">): DeviceAccess;
}

/** Who works on what of the node: locks that the kernel frees when their holder ends, however it ends. */
export interface HostLocks {
  /** Of the state folder; waits as long as another process has it. @throws {KernelError}; the signal's reason. */
  folder(path: string, options: FolderLockOptions): Promise<ExclusiveLock>;
  /** Of a PF; undefined while another process has it. @throws {KernelError} ENOENT when it is not there. */
  pf(address: string): ExclusiveLock | undefined;
}
