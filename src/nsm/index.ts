// The service itself: what NSM peers ask of this node, from the message to the answer.
// Knows paths, tokens, endpoints and the order of things; knows nothing of the kernel: a virtual function and a network
// namespace are things it asks other rooms to prepare, apply and release (mechanism/mechanism.ts, dependencies.ts).
// Start reading at request/request.ts: one Request from its arrival to its answer; then close.ts and teardown.ts beside it, the
// one way out. permission/ says who may ask for what and how much; endpoint/ finds the next hop and calls it; mechanism/ is what the
// client gets; registry/ is our own entry there; monitor/ is what watchers see.

export type {
  Caller,
  ConnectionJournal,
  JournalEntry,
  OwnedFd,
  PathPolicies,
  PathToCheck,
  Tokens,
} from "./dependencies.ts";
export type { InodeUrl } from "./mechanism/inode-url.ts";
export type {
  Attachment,
  MechanismAsk,
  MechanismDriver,
  MechanismDrivers,
  PassedFilesOfCall,
} from "./mechanism/mechanism.ts";
export {
  PARAMETER,
  type WantedKernel,
  type WantedMechanism,
  type WantedNoop,
  type WantedVfio,
} from "./mechanism/requested-mechanism.ts";
export type { ManagerSource, Owner } from "./permission/connection-owner.ts";
export { type Held, QUOTA, quotaExcess } from "./permission/quota.ts";
export {
  type OwnSocket,
  Registration,
  type RegistrationOptions,
  type RegistrationState,
  type RegistrationToCheck,
} from "./registry/register.ts";
export type { ConnectionSummary } from "./request/connection-summary.ts";
export { createForwarderService, type ForwarderService, type ForwarderServiceOptions } from "./service.ts";
