// The service itself: what NSM peers request of this node, from the message to the answer.
// Knows paths, tokens, endpoints and the order of things; knows nothing of the kernel: a virtual function and a network
// namespace are things it has other modules prepare, apply and release (mechanism/mechanism.ts).
// Start reading at request/request.ts: one Request from its arrival to its answer; then close.ts and teardown.ts beside it, the
// one way out. Its folders, top to bottom (.dependency-cruiser.cjs has it as a rule): request/ is the life of a connection; monitor/ what
// watchers see; registry/ our own entry there; endpoint/ finds the next hop and calls it; permission/ says who may request what and how
// much; mechanism/ is what the client gets. Beneath are path.ts, peers.ts and fault.ts; service.ts fits all together.
export { REFUSAL_KINDS, type RefusalKind } from "./fault.ts";
export type { InodeUrl } from "./mechanism/inode-url.ts";
export type {
  Attachment,
  MechanismDriver,
  MechanismDrivers,
  MechanismRequest,
  PassedFilesOfCall,
} from "./mechanism/mechanism.ts";
export {
  type DesiredKernel,
  type DesiredMechanism,
  type DesiredNoop,
  type DesiredVfio,
  PARAMETER,
} from "./mechanism/requested-mechanism.ts";
export type { OwnedFd } from "./peers.ts";
export { type Held, QUOTA, type Quota, quotaExcess } from "./permission/quota.ts";
export { answerPolicies } from "./registry/answer-policies.ts";
export { Registration } from "./registry/register.ts";
export type { ConnectionSummary } from "./request/connection-summary.ts";
export type { ConnectionJournal, JournalEntry } from "./request/journal-entry.ts";
export { createForwarderService, type ForwarderService } from "./service.ts";
