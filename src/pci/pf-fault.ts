import type { PciAddress } from "./address.ts";

/** Why a configured physical function cannot be used, as a code from a closed set. */
export type PfFaultKind =
  | "missing"
  | "not-sriov"
  | "is-virtual"
  | "no-driver"
  | "no-netdev"
  | "several-netdevs"
  /** Its network device in sysfs is not what netlink has under that index: the two speak of different network namespaces. */
  | "other-namespace"
  /** The kernel does not say that its network device is its own. */
  | "unidentified-netdev"
  | "creation-failed"
  | "creation-stuck"
  | "unreadable";

/** A configured physical function that cannot be used; the others are not touched by it. */
export interface PfFault {
  readonly address: PciAddress;
  readonly kind: PfFaultKind;
  /** A sentence for the operator, with what to do where that is known. */
  readonly message: string;
}

/** What is odd about a usable physical function, as a code from a closed set. */
export type PfNoteKind =
  | "pf-driver-differs"
  | "vf-driver-missing"
  | "switchdev-mode"
  | "vf-count-differs"
  | "no-vfs"
  | "listed-vf-missing";

/** Something odd that does not keep the physical function from being used. */
export interface PfNote {
  readonly address: PciAddress;
  readonly kind: PfNoteKind;
  readonly message: string;
}

/** A physical function cannot be used; turned into a `PfFault` by `discover`, and by the caller that has VFs made. */
export class PfError extends Error {
  override readonly name = "PfError";
  readonly kind: PfFaultKind;

  constructor(kind: PfFaultKind, message: string, options?: ErrorOptions) {
    super(message, options);
    this.kind = kind;
  }
}
