// A node on which everything is as it should be, for tests that break one thing of it.
import { type PhysicalFunction, parsePciAddress } from "../../../pci/index.ts";
import type { CheckFacts } from "../facts-form.ts";

const pf = parsePciAddress("0000:3b:00.0");

/** A usable physical function with two virtual ones. */
export const somePf: PhysicalFunction = {
  address: pf,
  entry: {
    address: pf,
    pfKernelDriver: "ice",
    vfKernelDriver: "iavf",
    capabilities: ["10G"],
    serviceDomains: ["worker.domain"],
    virtualFunctions: [],
    numVfs: undefined,
    carrier: "watch",
    hostUse: "withhold",
    settings: {
      spoofCheck: undefined,
      trust: undefined,
      linkState: undefined,
      minTxRateMbps: undefined,
      maxTxRateMbps: undefined,
    },
  },
  driver: "ice",
  ifname: "ens6f0",
  ifindex: 4,
  numaNode: 0,
  totalVfs: 8,
  eswitchMode: "legacy",
  vfs: ["0000:3b:01.0", "0000:3b:01.1"].map((address, index) => ({
    address: parsePciAddress(address),
    index,
    pf,
    kernelDriver: "iavf",
    resources: ["worker.domain/10G"],
    iommuGroup: 70 + index,
    numaNode: 0,
    driver: "iavf",
  })),
};

export const soundNode: CheckFacts = {
  environment: { problems: [], warnings: [] },
  managerIds: undefined,
  pfList: { path: "/etc/pci.config", kind: "read", config: { physicalFunctions: [somePf.entry] } },
  discovery: { pfs: [somePf], faults: [], notes: [] },
  ports: new Map([[pf, { ifname: "ens6f0", isUp: true, hasCarrier: true }]]),
  sysfsRefusals: new Map(),
  hostUse: { kind: "seen", netdevs: new Map() },
  vfio: {
    iommuGroupCount: 80,
    cpuVendor: "GenuineIntel",
    hasDriver: true,
    hasMemoryModule: true,
    isNoIommuMode: false,
    path: "/host/dev/vfio",
    hasFolder: true,
    hasContainerNode: true,
    openRefusal: undefined,
    isAtItsUsualPlace: true,
    memlockBytes: undefined,
    memlockOf: "containerd (process 700)",
  },
  cgroups: {
    path: "/host/sys/fs/cgroup",
    kind: "v2",
    bpfProblem: undefined,
    pods: { trees: ["kubepods.slice"], known: ["uid-1", "uid-2"], missing: ["uid-2"] },
  },
  peers: (["spire-agent", "nsmgr", "kubelet", "pod-resources"] as const).map((check) => ({
    check,
    path: `/run/${check}.sock`,
    refusal: undefined,
  })),
  pluginFolder: { path: "/plugins", nearest: "/plugins", refusal: undefined, fileSystem: "ext4" },
  stateFolder: { path: "/state", nearest: "/", refusal: undefined, fileSystem: "ext4" },
  process: {
    capabilities: 0x1ff_ffff_ffffn,
    isUserNamespace: false,
    release: "6.1.0-21-amd64",
    arch: "x64",
    seesHardware: true,
    openFiles: 65_536,
    selfTestProblem: undefined,
  },
  budget: { memoryBytes: 256 * 1_048_576, shortage: undefined, says: { connections: "256 each", calls: "1024 each" } },
  policies: { kind: "selected", names: ["a.rego", "b.rego"], warnings: [] },
};
