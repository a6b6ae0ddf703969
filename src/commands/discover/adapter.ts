import type { PciAddress } from "../../pci/index.ts";

/** A network device of an adapter. */
export interface AdapterLink {
  readonly ifname: string;
  readonly isUp: boolean;
  /** Of the link as it is now; undefined while there is none. */
  readonly speedMbps: number | undefined;
  /** The bond, bridge or switch that it is a port of. */
  readonly master: string | undefined;
}

/** A PCI function of this node that is a network adapter, or that could have virtual functions. */
export interface Adapter {
  readonly address: PciAddress;
  /** Class code of the PCI specification: base class, subclass, interface; 0x020000 is Ethernet. */
  readonly classCode: number;
  readonly vendorId: number;
  readonly deviceId: number;
  readonly driver: string | undefined;
  /** That of its virtual functions, as the kernel says it. */
  readonly vfDeviceId: number | undefined;
  readonly numaNode: number | undefined;
  readonly isVirtual: boolean;
  /** Undefined: it offers none. */
  readonly totalVfs: number | undefined;
  readonly vfs: readonly { readonly address: PciAddress; readonly driver: string | undefined }[];
  /** Its own, without those that represent one virtual function each. */
  readonly links: readonly AdapterLink[];
  /** Network devices that represent one virtual function each: it is a switch. */
  readonly representorCount: number;
}

/** What the node has, as far as a choice depends on it. */
export interface NodeAdapters {
  readonly adapters: readonly Adapter[];
  /** Network devices that the node's own traffic leaves by. */
  readonly defaultRoutes: readonly string[];
}
