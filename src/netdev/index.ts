// A link of the host as a network device in a client's namespace: desired state, actual state, what to change, the way in
// and the restore. Knows links, addresses, routes and the settings of a VF on its PF; nothing of NSM, tokens or drivers.
// Only what carries our mark (owned.ts) is ever removed. Start reading at attachment.ts; plan.ts is the
// pure middle.

export { type AttachOptions, attachNetdev, NetdevAttachment } from "./attachment.ts";
export { type AttachmentState, type HostSide, unknownState } from "./attachment-state.ts";
export { BorrowedSettings, type RequestedSettings } from "./borrowed-settings.ts";
export { isNotCleared } from "./clearing-time.ts";
export { type DesiredNetdev, desiredNetdev, type RequestedNetdev, type RequestedRoute } from "./desired.ts";
export { NetdevError, type NetdevFault } from "./error.ts";
export { foundInClient, ownedAsGiven } from "./found-link.ts";
export { HostLinks, inSession } from "./host-links.ts";
export { chosenMac, readHostSide } from "./host-side.ts";
export { restoreKept } from "./kept-settings.ts";
export {
  type LinkSettings,
  linkDifferences,
  type NamedLink,
  readLinkSettings,
  type SettingDifference,
} from "./link-settings.ts";
export { parseInterfaceName } from "./parse.ts";
export { type PfMemory, type PfName, rtnlPfPort } from "./pf-port.ts";
export { readQueueSettings } from "./queue-settings.ts";
export { type NotRestoredSetting, type RestoredSettings, restoreLinkSettings } from "./restore-link-settings.ts";
export type { OthersNames } from "./restore-name.ts";
export type { NotRestored } from "./restore-to-host.ts";
export { type KeptSettings, linkSettingsOf, type SettingsDoor } from "./settings-door.ts";
export { isForeignLink, type VfIdentity } from "./verify-link.ts";
export { isOtherDevice, type VfLink } from "./vf-link.ts";
export { differingSettings, NO_MAC, type PfPort, type VfSettings } from "./vf-settings-through-pf.ts";
