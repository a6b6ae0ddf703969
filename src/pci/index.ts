// The PCI functions of this node: which PFs and VFs there are, which driver serves them, what the host uses them for, and the
// operator's list of PFs. Knows the kernel's files, nothing of clients, tokens or connections; opens no network device.
// Start reading at discover.ts (what is there) and driver-binder.ts (which driver serves it); pf-config.ts is the operator's list.
export { isPciAddress, type PciAddress, parsePciAddress } from "./address.ts";
export { createVfs, desiredVfs } from "./create-vfs.ts";
export { type Discovery, discover, type PhysicalFunction, type VfFacts } from "./discover.ts";
export { DriverBinder, type DriverBinderOptions, type VfUse } from "./driver-binder.ts";
export { DriverError, type DriverFault } from "./driver-fault.ts";
export { switchdevProblem } from "./eswitch.ts";
export { describeHostUse, isLinkLocal, type NetdevUse } from "./host-use.ts";
export { HostUseReader, type HostUseSeen } from "./host-use-reader.ts";
export { nearestWord } from "./nearest.ts";
export { PF_CONFIG_MEBIBYTES, parsePfConfig } from "./pf-config.ts";
export { type PfConfig, PfConfigError, type PfEntry } from "./pf-config-form.ts";
export { PfError, type PfFault, type PfFaultKind, type PfNote } from "./pf-fault.ts";
export { type FindPfLink, pfLinks } from "./pf-link.ts";
export { PfReadings } from "./pf-readings.ts";
export {
  driverOf,
  netdevFolder,
  netdevNames,
  numaNodeOf,
  orMissing,
  ownNetdevs,
  type VfObservation,
  virtualFunctionLinks,
} from "./read-sysfs.ts";
export { resourceName, serviceDomainProblem } from "./resource-name.ts";
export type { VfioDevice } from "./vfio-group.ts";
