// The only door to Linux: descriptors, network namespaces, sockets, files of the host. One call of ours is one or a few
// syscalls; no policy and no word of SR-IOV or NSM lives here. Errors are KernelError with the errno's name.
// Start reading at native.ts (every libc call there is) and netns.ts.
export { type AppendFile, FileRemovedError } from "./append-file.ts";
export { BlockingWrites, type TextWrites } from "./blocking-writes.ts";
export { BpfCommand, bpf } from "./bpf.ts";
export { CgroupFolder, cgroupVersionOf } from "./cgroup-folder.ts";
export { deviceHolders } from "./device-holders.ts";
export { type DeviceNumber, makeCharDevice } from "./device-node.ts";
export {
  type AttachedPrograms,
  AttachFlag,
  attachDeviceProgram,
  detachDeviceProgram,
  deviceProgramsOf,
  type LoadedProgram,
  loadDeviceProgram,
  openProgram,
  readProgram,
} from "./device-program.ts";
export { type Disk, type DiskFile, type FileFacts, linuxDisk } from "./disk.ts";
export { codeOf, Errno } from "./errno.ts";
export { KernelError } from "./error.ts";
export { type ExclusiveLock, type FolderLockOptions, lockFolder, tryLockFolder } from "./exclusive-lock.ts";
export { type BorrowedFd, Fd, type FileId, fileKey } from "./fd.ts";
export { FdExchange, HELD_FDS_LIMIT, type PassedFds, UNKNOWN_PEER_FDS_LIMIT } from "./fd-exchange.ts";
export { checkedPath, type DeviceUse, type HostFiles, openHostFiles } from "./host-files.ts";
export { KernelSocket, type SocketKind } from "./kernel-socket.ts";
export {
  isLinkOf,
  isRepresentor,
  type LinkOwner,
  type LinkOwnerOf,
  type LinkPlace,
  linkOwners,
} from "./link-owner.ts";
export { addressOf, exitNow, offHeap } from "./native.ts";
export {
  type Address,
  type CreateLink,
  type DefaultRoute,
  Devlink,
  type EswitchMode,
  type IpFamily,
  ipFromBytes,
  ipToBytes,
  isUpperOf,
  type Link,
  type Neighbour,
  type NetlinkEvent,
  type NetlinkGroup,
  type NetlinkPipe,
  type NewAddress,
  type NewNeighbour,
  type NewRoute,
  type NewRule,
  type OpenRtnl,
  type PortRange,
  type Route,
  RT_TABLE_LOCAL,
  RT_TABLE_MAIN,
  Rtnl,
  type Rule,
  type SetLink,
  type VfChange,
  type VfInfo,
  type VfLinkState,
} from "./netlink/index.ts";
export { inNetns, Netns, NotANetnsError } from "./netns.ts";
export { selfTest } from "./self-test.ts";
export { readSmallFile } from "./small-file.ts";
export { openPeerChain, type PeerChain } from "./ssl-context.ts";
export { openStateFolder, type StateFolder, type StateFolderParts } from "./state-folder.ts";
export { openUevents, parseUevent, type Uevent, type UeventSource } from "./uevents.ts";
export { unixListeners } from "./unix-listeners.ts";
export { connectUnix, type ListenUnixOptions, listenUnix, type UnixListener } from "./unix-socket.ts";
export { UnixStream } from "./unix-stream.ts";
export { type WatchedFolder, watchFolder } from "./watch-folder.ts";
export { folderRefusal, writeRefusal } from "./write-refusal.ts";
