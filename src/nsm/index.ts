// The service itself: what NSM peers ask of this node, from the message to the answer.
// Knows paths, tokens, endpoints and the order of things; knows nothing of the kernel: a virtual function and a network
// namespace are things it asks other rooms to prepare, apply and release (mechanism.ts, needs.ts).
// Start reading at request.ts: one Request from its arrival to its answer; then close.ts and teardown.ts, the one way out.
export { type KernelVf, type KernelVfSource, kernelDriver } from "./kernel.ts";
export type { Attachment, MechanismAsk, MechanismDriver, MechanismDrivers } from "./mechanism.ts";
export type { Caller, ConnectionJournal, JournalEntry, OwnedFd, PathPolicies, PathToCheck, Tokens } from "./needs.ts";
export { noopDriver } from "./noop.ts";
export type { ManagerSource, Owner } from "./owner.ts";
export { type Held, QUOTA, quotaExcess } from "./quota.ts";
export {
  type OwnSocket,
  Registration,
  type RegistrationOptions,
  type RegistrationState,
  type RegistrationToCheck,
} from "./register.ts";
export { createForwarderService, type ForwarderService, type ForwarderServiceOptions } from "./service.ts";
export type { ConnectionSummary } from "./summary.ts";
export { type AskedVfio, type VfioAsk, type VfioNumbers, type VfioVf, type VfioVfSource, vfioDriver } from "./vfio.ts";
export type { WantedKernel, WantedMechanism, WantedVfio } from "./wanted.ts";
