// The mechanisms of this node, each one class behind nsm's `Attachment`: one VF from the moment a connection takes it until it is
// restored, and what is kept on disk of that. Knows no peer and no endpoint, and of kubelet only its
// record of which pod has a token.
// Start reading at held-vf.ts, then kernel/kernel-attachment.ts or vfio/vfio-attachment.ts. After a restart: the module reconcile.
export { type NodeJournal, openNodeJournal } from "./connection-journal.ts";
export type { KernelVfEntry, UnrestoredVf, VfEntry, VfioVfEntry } from "./journal-entries.ts";
export type { KernelParts } from "./kernel/kernel-attachment.ts";
export { endWithPods, mechanisms, openAccess } from "./mechanisms.ts";
export { netdevPartsOf, vfLinkOf } from "./netdev-parts.ts";
export { othersNames } from "./promised-names.ts";
export { UnrestoredVfs } from "./unrestored-vfs.ts";
export { rulesOfOriginal } from "./vfio/found-vf.ts";
export { type AdoptedGrant, AdoptedGrants } from "./vfio/vfio-entry.ts";
