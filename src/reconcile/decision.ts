// What can follow for a VF from a pass.

/** What is done to make record, journal and node agree; each is counted. */
export const repairs = [
  /** The events of a change were lost: the whole node is observed. */
  "rescan",
  /** Its namespace has ended: its connection is taken down. */
  "end-connection",
  /** Its driver makes another network device than the client had, what it was before is made so again, and it is free. */
  "restore",
  /** Access to it is revoked from the pod that had it by VFIO; when no process has it open, it is restored and free. */
  "revoke",
  /** Its kernel driver was unbound: it is bound again, then it can be restored. */
  "rebind",
  /** It comes from an unknown namespace: nothing of the client stays, and it is free. */
  "clean",
  /** It is free, and its network device is not in the host: no client gets it. */
  "quarantine",
  /** The node has lost it, and what the journal has of it with it. */
  "forget",
] as const;

/** One of them. */
export type Repair = (typeof repairs)[number];

/** What follows for the VF. At most one thing: the next pass decides on the next. */
export type Decision =
  | { readonly kind: "leave" }
  /** The same at the next pass is a fault; once, it may be work under way. */
  | { readonly kind: "observe-again"; readonly as: "mismatch" | "netdev-unseen" }
  /** The journal has it, and the node does not, yet or any more. */
  | { readonly kind: "await" }
  /** Its connection is continued: served where it is established, else taken down. */
  | { readonly kind: "adopt"; readonly stage: "ready" | "preparing" | "reclaiming" }
  /** Its connection had ended, and the previous instance was not done with cleaning it. */
  | { readonly kind: "clean-on" }
  | { readonly kind: "contradiction"; readonly problem: string }
  | { readonly kind: "repair"; readonly repair: Exclude<Repair, "forget"> };
