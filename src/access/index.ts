// Which device nodes the processes of a pod may open: device cgroups, by rules on version 1 and by BPF programs on version 2.
// Knows pods only as names of cgroups, and devices only as numbers; nothing of NSM, tokens, VFIO or PCI. Whatever a runtime
// or systemd has installed is added to, never replaced by something of our own making, and removed the same way.
// Start reading at grant.ts: what is promised; then pod-access.ts, and rewrite-device-programs.ts for version 2.
export { openDeviceAccess } from "./device-access.ts";
export { AccessError, type AccessFault } from "./error.ts";
export { kubepodsTrees, openHierarchy, PodFinder } from "./find-pod-cgroup.ts";
export type {
  DeviceAccess,
  DeviceAccessOptions,
  DeviceGrant,
  GrantRequest,
  GrantState,
  RecordState,
  WrittenRule,
} from "./grant.ts";
