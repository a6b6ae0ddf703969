// One VF from the moment a connection takes it until it is home: what KERNEL and VFIO do with it, and what is
// kept on disk of that. Fitted together from the rooms that do the work; knows no peer, no endpoint and no kubelet.
// Start reading at held-vf.ts, then kernel-vf-source.ts or vfio-vf-source.ts. After a restart: the module reconcile.
export {
  type KernelVfEntry,
  type NodeJournal,
  openNodeJournal,
  type VfEntry,
  type VfioVfEntry,
} from "./connection-journal.ts";
export type { KernelVfParts } from "./kernel-vf-source.ts";
export { verifyVfLink } from "./link-check.ts";
export { endWithPods, mechanisms, openAccess } from "./mechanisms.ts";
export type { TokenPods } from "./token-pods.ts";
export { vfLinkOf } from "./vf-link.ts";
export { type AdoptedGrant, AdoptedGrants } from "./vfio-entry.ts";
