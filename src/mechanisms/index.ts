// The mechanisms of this node, each one class behind nsm's `Attachment`: one VF from the moment a connection takes it until it is
// restored, and what is kept on disk of that. Knows no peer and no endpoint, and of kubelet only its
// record of which pod has a token.
// Start reading at held-vf.ts, then kernel/kernel-attachment.ts or vfio/vfio-attachment.ts. After a restart: the module reconcile.
export {
  type KernelVfEntry,
  type NodeJournal,
  openNodeJournal,
  type VfEntry,
  type VfioVfEntry,
} from "./connection-journal.ts";
export type { KernelParts } from "./kernel/kernel-attachment.ts";
export { verifyVfLink } from "./link-check.ts";
export { endWithPods, mechanisms, openAccess } from "./mechanisms.ts";
export { vfLinkOf } from "./vf-link.ts";
export { type AdoptedGrant, AdoptedGrants } from "./vfio/vfio-entry.ts";
