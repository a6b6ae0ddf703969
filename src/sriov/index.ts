// PFs and VFs: which there are, which driver serves them, who may have which and who has which.
// Knows the kernel's files, nothing of gRPC, kubelet or NSM; opens no network device.
// Start reading at inventory.ts: it has the one record of each VF, and everything the forwarder counts is a view of it.
// vf-condition.ts says what can be wrong with a VF; pf-config.ts, discover.ts and driver.ts where its facts come from.
export { isPciAddress, type PciAddress, parsePciAddress } from "./address.ts";
export { type CreateVfsOptions, createVfs, wantedVfs } from "./create-vfs.ts";
export { type DiscoverOptions, type Discovery, discover, type PhysicalFunction } from "./discover.ts";
export { DriverBinder, type DriverBinderOptions, type VfNetdev } from "./driver.ts";
export { DriverError, type DriverFault } from "./driver-fault.ts";
export { type AskEswitchMode, eswitchModeOf, switchdevProblem } from "./eswitch.ts";
export {
  describeHostUse,
  type HostNetwork,
  type HostUse,
  hostUseOf,
  hostUseWords,
  isLinkLocal,
  type NetdevUse,
} from "./host-use.ts";
export { HostUseReader } from "./host-use-reader.ts";
export { Inventory } from "./inventory.ts";
export { InventoryError, type InventoryFault } from "./inventory-fault.ts";
export {
  type AdoptRequest,
  type DeviceView,
  type InventoryChange,
  type Reservation,
  type TakeRequest,
  type VfFacts,
  type VfRecord,
  type VfState,
  type VfUse,
  vfStates,
} from "./inventory-form.ts";
export { nearestWord } from "./nearest.ts";
export { type Offer, offerOf } from "./offer.ts";
export {
  driverOf,
  iommuGroupMembers,
  iommuGroupOf,
  netdevFolder,
  netdevNames,
  numaNodeOf,
  orMissing,
  ownNetdevs,
  type VfGlance,
  virtualFunctionLinks,
} from "./pci-files.ts";
export { parsePfConfig } from "./pf-config.ts";
export {
  type ListedFunction,
  type PfConfig,
  PfConfigError,
  type PfConfigIssue,
  type PfEntry,
  type PfSettings,
} from "./pf-config-form.ts";
export { PfError, type PfFault, type PfFaultKind, type PfNote, type PfNoteKind } from "./pf-fault.ts";
export { type FindPfLink, pfLinks } from "./pf-link.ts";
export { type Placement, type PreferenceRequest, preferDevices } from "./preferred.ts";
export { resourceName, serviceDomainProblem } from "./resource-name.ts";
export { isTokenId, shortToken, shortTokens, tokenId } from "./tokens.ts";
export {
  type BeforeClient,
  type ConditionEffect,
  describeCondition,
  effectOf,
  labelOf,
  type VfCondition,
  type VfConditionCode,
  type VfConditionOf,
  vfConditionCodes,
} from "./vf-condition.ts";
export { conditionOf } from "./vf-record.ts";
export { type VfioDevice, VfioGroups } from "./vfio-group.ts";
