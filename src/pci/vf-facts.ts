import type { PciAddress } from "./address.ts";

/** What a VF serves as: a network device, or a VFIO device that a pod opens itself. */
export type VfUse = "kernel" | "vfio";

/** What the node says about one VF. */
export interface VfFacts {
  readonly address: PciAddress;
  readonly pf: PciAddress;
  /** N of the link `virtfnN`: the number under which the PF knows it. */
  readonly index: number;
  /** Undefined without an IOMMU: it can then serve as a network device only. */
  readonly iommuGroup: number | undefined;
  /** Undefined when the platform does not say. */
  readonly numaNode: number | undefined;
  /** The driver for KERNEL, from the configuration. */
  readonly kernelDriver: string;
  /** Resource names it is offered under. */
  readonly resources: readonly string[];
  /** The driver it is bound to now. */
  readonly driver: string | undefined;
  /** Why VFIO cannot be had although there is a group, for example that an unmanaged device shares it. */
  readonly vfioProblem?: string | undefined;
}
