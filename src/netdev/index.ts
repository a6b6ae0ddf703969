// A link of the host as a network device in a client's namespace: desired state, actual state, what to change, the way in
// and the restore. Knows links, addresses, routes and the settings of a VF on its PF; nothing of NSM, tokens or drivers.
// Only what carries our mark (owned.ts) is ever removed. Start reading at attach.ts and attachment.ts; plan.ts is the
// pure middle.

export { type AttachOptions, attachNetdev, unknownState } from "./attach.ts";
export { type AttachmentState, NetdevAttachment } from "./attachment.ts";
export { BorrowedSettings, type RequestedSettings } from "./borrowed-settings.ts";
export { type DesiredNetdev, desiredNetdev, type RequestedNetdev, type RequestedRoute } from "./desired.ts";
export { NetdevError, type NetdevFault } from "./error.ts";
export { HostLinks } from "./host-links.ts";
export { parseInterfaceName } from "./parse.ts";
export { type PfMemory, type PfName, rtnlPfPort } from "./pf-port.ts";
export { inSession } from "./read.ts";
export type { NotRestored } from "./restore-to-host.ts";
export { isForeignLink, type VfIdentity } from "./verify-link.ts";
export type { VfLink } from "./vf-link.ts";
export { applyVfSettings, differingSettings, type PfPort, type VfSettings } from "./vf-settings-through-pf.ts";
