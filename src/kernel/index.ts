// The only door to Linux: descriptors, network namespaces, sockets, files of the host. One call of ours is one or a few
// syscalls; no policy and no word of SR-IOV or NSM lives here. Errors are KernelError with the errno's name.
// Start reading at native.ts (every libc call there is) and netns.ts; netlink/rtnl.ts for links, addresses, routes, rules, neighbours.
export { type AppendFile, FileRemovedError } from "./append-file.ts";
export { BlockingWrites, type TextWrites, type WriteLimit } from "./blocking-writes.ts";
export { BpfCommand, bpf } from "./bpf.ts";
export { CgroupFolder, cgroupVersionOf } from "./cgroup-folder.ts";
export { deviceHolders } from "./device-holders.ts";
export { type DeviceNumber, makeCharDevice } from "./device-node.ts";
export {
  AttachFlag,
  attachDeviceProgram,
  detachDeviceProgram,
  deviceProgramsOf,
  loadDeviceProgram,
  openProgram,
  readProgram,
} from "./device-program.ts";
export { type Disk, type DiskFile, type FileFacts, linuxDisk } from "./disk.ts";
export { codeOf, Errno } from "./errno.ts";
export { KernelError } from "./error.ts";
export { EthtoolIoctl } from "./ethtool-ioctl.ts";
export { type ExclusiveLock, type FolderLockOptions, lockFolder, tryLockFolder } from "./exclusive-lock.ts";
export { type BorrowedFd, Fd, type FileId, fileKey } from "./fd.ts";
export { type FdBudget, FdExchange, HELD_FDS_LIMIT, type PassedFds, UNKNOWN_PEER_FDS_LIMIT } from "./fd-exchange.ts";
export { filesBelow } from "./files-below.ts";
export { type DeviceUse, type HostFiles, openHostFiles } from "./host-files.ts";
export { KernelSocket } from "./kernel-socket.ts";
export { isLinkOf, isRepresentor, type LinkOwner, type LinkOwnerOf, type LinkPlace, linkOwners } from "./link-owner.ts";
export { addressOf, exitNow, offHeap, trimMemory } from "./native.ts";
export type { Address, IpFamily, NewAddress } from "./netlink/address.ts";
export type { ListOptions } from "./netlink/conversation.ts";
export { Devlink, type EswitchMode } from "./netlink/devlink.ts";
export { bitsetChange } from "./netlink/ethtool.ts";
export { ipFromBytes, ipToBytes } from "./netlink/ip.ts";
export { isUpperOf, type Link } from "./netlink/link.ts";
export { LinkControl, type LinkWrite, type RawLink } from "./netlink/link-control.ts";
export type { Neighbour, NewNeighbour } from "./netlink/neighbour.ts";
export { type RawAttribute, rawAttributes, type WrittenAttribute } from "./netlink/raw-attributes.ts";
export { type DefaultRoute, type NewRoute, type Route, RT_TABLE_LOCAL, RT_TABLE_MAIN } from "./netlink/route.ts";
export { type OpenRtnl, Rtnl, type SetLink } from "./netlink/rtnl.ts";
export type { NewRule, PortRange, Rule } from "./netlink/rule.ts";
export type { VfChange, VfLinkState } from "./netlink/virtual-function.ts";
export type { NetlinkEvent } from "./netlink/watch.ts";
export { inNetns, Netns, NotANetnsError } from "./netns.ts";
export { selfTest } from "./self-test.ts";
export { readSmallBytes, readSmallFile } from "./small-file.ts";
export { openPeerChain, type PeerChain } from "./ssl-context.ts";
export { openStateFolder, type StateFolder } from "./state-folder.ts";
export { tcxProgramsOf } from "./tcx.ts";
export { openUevents, type Uevent, type UeventSource } from "./uevents.ts";
export { unixListeners } from "./unix-listeners.ts";
export { connectUnix, listenUnix } from "./unix-socket.ts";
export { UnixStream } from "./unix-stream.ts";
export { type WatchedFolder, watchFolder } from "./watch-folder.ts";
export { folderRefusal, writeRefusal } from "./write-refusal.ts";
