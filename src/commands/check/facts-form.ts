import type { Discovery, NetdevUse, PciAddress, PfConfig } from "../../pci/index.ts";
import type { BudgetFact, PolicyFact, ReadEnvironment } from "../command.ts";

/** The list of physical functions, or why there is none. */
export type PfListFact = { readonly path: string } & (
  | { readonly kind: "read"; readonly config: PfConfig }
  | {
      readonly kind: "unreadable";
      readonly code: string;
      /** What is wrong with it in words, where the errno does not say it: "it is no file". */
      readonly detail: string | undefined;
    }
  /** Each a line with its place in the file. */
  | { readonly kind: "wrong"; readonly issues: readonly string[] }
);

/** The network device of a physical function. */
export interface PortFact {
  readonly ifname: string;
  readonly isUp: boolean;
  /** Undefined while it is down: the kernel does not say then. */
  readonly hasCarrier: boolean | undefined;
}

/** What the node has for VFIO. */
export interface VfioFacts {
  readonly iommuGroupCount: number;
  /** As in /proc/cpuinfo, "GenuineIntel"; undefined where it does not say. */
  readonly cpuVendor: string | undefined;
  readonly hasDriver: boolean;
  /** vfio_iommu_type1, by which clients make their memory known to the IOMMU. */
  readonly hasMemoryModule: boolean;
  readonly isNoIommuMode: boolean;
  /** NSM_VFIO_PATH */
  readonly path: string;
  readonly hasFolder: boolean;
  /** The node `vfio` in it. */
  readonly hasContainerNode: boolean;
  /** Why this process may not open that node, as the errno's name; undefined when it may, or it was not tried. */
  readonly openRefusal: string | undefined;
  /** Whether there is a /dev/vfio here, whatever NSM_VFIO_PATH says. */
  readonly isAtItsUsualPlace: boolean;
  /** How much memory clients may lock; undefined is no limit. */
  readonly memlockBytes: number | undefined;
  /** Whose limit that is: the container runtime's, where it can be seen. */
  readonly memlockOf: string;
}

/** The host's device cgroups, and whether they can be changed from here. */
export type CgroupFacts = { readonly path: string } & (
  | { readonly kind: "none"; readonly problem: string }
  | { readonly kind: "v1"; readonly refusal: string | undefined; readonly pods: PodCgroupFacts }
  | { readonly kind: "v2"; readonly bpfProblem: string | undefined; readonly pods: PodCgroupFacts }
);

/** Whose pods are beneath the path. */
interface PodCgroupFacts {
  /** Cgroups that hold a kubelet's pods, beneath the path. */
  readonly trees: readonly string[];
  /** UIDs of the pods that kubelet has given devices, by its own record. */
  readonly known: readonly string[];
  /** Those of them that have no cgroup beneath the path. */
  readonly missing: readonly string[];
}

/** A program that must be there, and its socket. */
export interface PeerFact {
  readonly check: "spire-agent" | "nsmgr" | "kubelet" | "pod-resources";
  /** Undefined when it is on TCP, where nothing is tried, or not configured. */
  readonly path: string | undefined;
  /** The errno's name of a connection that was tried; undefined when it came about. */
  readonly refusal: string | undefined;
}

/** A folder that is written to. */
export interface FolderFact {
  readonly path: string;
  /** The folder itself, or the nearest one above that exists and in which it would be made. */
  readonly nearest: string;
  /** The errno's name; undefined: it can be written to. */
  readonly refusal: string | undefined;
  /** The file system that it lies on, for example "overlay". */
  readonly fileSystem: string | undefined;
}

/** The process and its kernel. */
export interface ProcessFacts {
  /** CapEff of /proc/self/status. */
  readonly capabilities: bigint;
  readonly isUserNamespace: boolean;
  /** uname -r */
  readonly release: string;
  readonly arch: string;
  /** Whether a network device of this namespace has hardware behind it. */
  readonly seesHardware: boolean;
  /** How many files it may have open; undefined for no limit. */
  readonly openFiles: number | undefined;
  /** What the test of passed descriptors said; undefined when all went well. */
  readonly selfTestProblem: string | undefined;
}

/** All that is judged. */
export interface CheckFacts {
  readonly environment: Pick<ReadEnvironment, "problems" | "warnings">;
  readonly pfList: PfListFact;
  /** What the forwarder itself would find. */
  readonly discovery: Discovery;
  readonly ports: ReadonlyMap<PciAddress, PortFact>;
  /** Why `sriov_numvfs` of a physical function could not be written to. */
  readonly sysfsRefusals: ReadonlyMap<PciAddress, string>;
  /** The network devices of PFs and VFs, and what the host uses each for. */
  readonly hostUse:
    | { readonly kind: "seen"; readonly netdevs: ReadonlyMap<PciAddress, readonly NetdevUse[]> }
    | { readonly kind: "unknown"; readonly problem: string };
  readonly vfio: VfioFacts;
  readonly cgroups: CgroupFacts;
  readonly peers: readonly PeerFact[];
  /** Whom the forwarder takes for the manager; undefined: any peer that answers. */
  readonly managerIds: readonly string[] | undefined;
  readonly pluginFolder: FolderFact;
  readonly stateFolder: FolderFact;
  readonly process: ProcessFacts;
  readonly budget: BudgetFact;
  readonly policies: PolicyFact;
}
