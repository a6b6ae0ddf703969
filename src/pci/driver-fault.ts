import type { PciAddress } from "./address.ts";

/** Why a driver could not be bound, or did not bring what it should. */
export type DriverFault =
  /** The kernel does not know the driver: its module is not loaded. */
  | { readonly kind: "driver-missing"; readonly driver: string }
  | { readonly kind: "unbind-refused"; readonly driver: string; readonly code: string }
  | { readonly kind: "bind-refused"; readonly driver: string; readonly code: string }
  /** A write did not return in time; under VFIO mostly because a process has the device open. */
  | { readonly kind: "write-stuck"; readonly driver: string }
  | { readonly kind: "no-iommu" }
  | { readonly kind: "group-shared"; readonly group: number; readonly others: readonly string[] }
  | { readonly kind: "no-vfio-node"; readonly group: number }
  /** The node by which every VFIO client begins: the module is not loaded, or the folder is not the host's. */
  | { readonly kind: "no-vfio-container" }
  /** A process has the IOMMU group open; the kernel would not unbind a VF of it before that one closes it. */
  | {
      readonly kind: "group-open";
      readonly group: number;
      readonly processes: readonly string[];
      /** Another VF of the group that the same pod has by VFIO: the kernel does not say which of them is in use. */
      readonly besides?: string;
    }
  /** We may not open the group, so that it cannot be proven free. */
  | { readonly kind: "group-unreadable"; readonly group: number; readonly code: string }
  | { readonly kind: "no-netdev" }
  /** With what the host uses it for, and how to end that. */
  | { readonly kind: "host-uses-it"; readonly how: string }
  | { readonly kind: "several-netdevs"; readonly names: readonly string[] }
  /** Drivers of physical functions are never changed. */
  | { readonly kind: "not-virtual" }
  | { readonly kind: "gone" };

/** A virtual function could not be given the desired driver. */
export class DriverError extends Error {
  override readonly name = "DriverError";
  readonly address: PciAddress;
  readonly fault: DriverFault;

  constructor(address: PciAddress, fault: DriverFault, options?: ErrorOptions) {
    super(describe(address, fault), options);
    this.address = address;
    this.fault = fault;
  }

  /** The message for a peer: the processes that have a group open may be another pod's. What is `besides` is of the peer's own. */
  get textForPeers(): string {
    return this.fault.kind === "group-open" ? groupOpenText(this.address, this.fault, "a process") : this.message;
  }
}

function describe(address: PciAddress, fault: DriverFault): string {
  switch (fault.kind) {
    case "driver-missing":
      return `Cannot bind ${address} to ${fault.driver}: this kernel has no such driver loaded; run: modprobe ${fault.driver}`;
    case "unbind-refused":
      return `Cannot unbind ${address} from ${fault.driver}: the kernel says ${fault.code}`;
    case "bind-refused":
      return `Cannot bind ${address} to ${fault.driver}: the kernel says ${fault.code || "nothing, and did not bind it"}`;
    case "write-stuck":
      return `Cannot bind ${address} to ${fault.driver}: the kernel does not finish the write; is the device still open somewhere?`;
    case "no-iommu":
      return `Cannot give ${address} to VFIO: it is in no IOMMU group; turn the IOMMU on (intel_iommu=on or amd_iommu=on)`;
    case "group-shared":
      return `Cannot give ${address} to VFIO: its IOMMU group ${fault.group} also holds ${fault.others.join(", ")}, which is not ours to bind`;
    case "no-vfio-node":
      return `Cannot give ${address} to VFIO: /dev/vfio/${fault.group} did not appear; is the host's /dev/vfio mounted at NSM_VFIO_PATH?`;
    case "no-vfio-container":
      return `Cannot give ${address} to VFIO: there is no /dev/vfio/vfio; run: modprobe vfio-pci, and mount the host's /dev/vfio at NSM_VFIO_PATH`;
    case "group-open":
      return groupOpenText(address, fault, holderText(fault.processes));
    case "group-unreadable":
      return `Cannot see whether a process has /dev/vfio/${fault.group} of ${address} open: the kernel says ${fault.code}; VFIO wants the forwarder's container to be privileged`;
    case "no-netdev":
      return `Cannot find the network device of ${address}: its driver has made none in this network namespace`;
    case "host-uses-it":
      return `Cannot use ${address}: the host uses it: ${fault.how}, or set hostUse: allow for its physical function`;
    case "several-netdevs":
      return `Cannot choose the network device of ${address}: it has ${fault.names.join(", ")}`;
    case "not-virtual":
      return `Cannot change the driver of ${address}: it is no virtual function`;
    case "gone":
      return `Cannot use ${address}: the node has no such PCI function any more`;
  }
}

function groupOpenText(
  address: PciAddress,
  { group, besides }: { readonly group: number; readonly besides?: string },
  holder: string,
): string {
  const open = `Cannot use ${address} for another client: ${holder} has its IOMMU group /dev/vfio/${group} open; it must close it first`;
  if (besides === undefined) return open;
  return `${open}. Its pod also has ${besides} of that group: this one is free when that one is closed too`;
}

function holderText(processes: readonly string[]): string {
  if (processes.length === 0) return "a process that is not visible from here";
  return `${processes.length > 1 ? "processes" : "process"} ${processes.slice(0, 5).join(", ")}`;
}
