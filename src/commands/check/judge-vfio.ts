import { dirname } from "node:path";
import type { CgroupFacts, ProcessFacts, VfioFacts } from "./facts-form.ts";
import { doubt, type Finding, failure, fine } from "./finding.ts";

/** What clients that poll a whole adapter's queues map at least; containerd's own default is far below. */
const MEMLOCK_LEAST_BYTES = 64 * 1024 * 1024;
const mechanisms = ["VFIO"] as const;
const only = { mechanisms } as const;

/** What VFIO needs of the node besides the VFs themselves. */
export function judgeVfio(vfio: VfioFacts, cgroups: CgroupFacts, { release, arch }: ProcessFacts): readonly Finding[] {
  return [
    judgeIommu(vfio),
    ...judgeModules(vfio),
    judgeFolder(vfio),
    judgeMemlock(vfio),
    judgeCgroups(cgroups),
    ...judgePods(cgroups),
    ...(cgroups.kind === "v2" ? judgeKernel(release, arch) : []),
  ];
}

const iommuArguments: Readonly<Record<string, string>> = {
  GenuineIntel: "turn VT-d on in the firmware, put intel_iommu=on iommu=pt on the kernel's command line, restart",
  AuthenticAMD: "turn AMD-Vi (IOMMU) on in the firmware, put iommu=pt on the kernel's command line, restart",
};

function judgeIommu({ iommuGroupCount, cpuVendor = "", isNoIommuMode }: VfioFacts): Finding {
  const check = "iommu";
  if (iommuGroupCount > 0) return fine(check, `${iommuGroupCount} IOMMU groups`, only);
  const todo = iommuArguments[cpuVendor] ?? "turn the IOMMU (SMMU) on in the firmware, restart";
  const what = isNoIommuMode ? "there is no IOMMU, only VFIO's unsafe mode without one" : "there is no IOMMU group";
  const why = "the kernel gives a device to VFIO only where an IOMMU keeps it to its client's memory";
  return failure({ check, mechanisms, what, why, todo });
}

function judgeModules({ hasDriver, hasMemoryModule }: VfioFacts): readonly Finding[] {
  const driver = hasDriver
    ? fine("vfio-pci", "driver vfio-pci is there", only)
    : failure({
        check: "vfio-pci",
        mechanisms,
        what: "driver vfio-pci is not loaded",
        why: "VFs are bound to it for VFIO clients",
        todo: "modprobe vfio-pci on the host, and at each boot: echo vfio-pci > /etc/modules-load.d/vfio-pci.conf",
      });
  if (hasMemoryModule || !hasDriver) return [driver];
  const memory = doubt({
    check: "vfio-iommu-type1",
    mechanisms,
    what: "module vfio_iommu_type1 is not loaded",
    why: "clients make their memory known to the IOMMU by it",
    todo: "modprobe vfio_iommu_type1 on the host",
  });
  return [driver, memory];
}

function judgeFolder(vfio: VfioFacts): Finding {
  const { path, hasFolder, hasContainerNode, openRefusal, isAtItsUsualPlace, hasDriver } = vfio;
  const check = "vfio-nodes";
  if (hasContainerNode && openRefusal === undefined) return fine(check, `${path}/vfio is there`, only);
  if (openRefusal !== undefined) {
    const what = `${path}/vfio cannot be opened by this process (${openRefusal})`;
    const why = "no client gets a VF before its group was opened for a moment, to prove that no process has it";
    const todo = "run the container privileged: the device rules of others forbid it, whatever their capabilities";
    return failure({ check, mechanisms, what, why, todo });
  }
  const base = { check, mechanisms, why: "a client is given the numbers of these device nodes" };
  if (hasFolder) {
    const todo = hasDriver ? "mount the host's /dev/vfio there" : "load vfio-pci, which makes it";
    return failure({ ...base, what: `${path} has no device node vfio`, todo });
  }
  const todo = isAtItsUsualPlace
    ? "mount the host's /dev/vfio there; on the host itself set NSM_VFIO_PATH=/dev/vfio"
    : "mount the host's /dev/vfio there, once vfio-pci is loaded; on the host itself set NSM_VFIO_PATH=/dev/vfio";
  return failure({ ...base, what: `there is no folder ${path} (NSM_VFIO_PATH)`, todo });
}

function judgeMemlock({ memlockBytes, memlockOf }: VfioFacts): Finding {
  const check = "memlock";
  if (memlockBytes === undefined) return fine(check, `${memlockOf} may lock any amount of memory`, only);
  const mib = `${Math.floor(memlockBytes / 1024 / 1024)} MiB`;
  if (memlockBytes >= MEMLOCK_LEAST_BYTES) return fine(check, `${memlockOf} may lock ${mib}`, only);
  return doubt({
    check,
    mechanisms,
    what: `${memlockOf} may lock only ${mib} of memory`,
    why: "pods inherit the limit of their runtime, and a VFIO client without CAP_IPC_LOCK locks all memory that it maps",
    todo: "LimitMEMLOCK=infinity in the container runtime's systemd unit, then restart it",
  });
}

function judgeCgroups(cgroups: CgroupFacts): Finding {
  const check = "device-cgroups";
  const { path } = cgroups;
  const base = { check, mechanisms, why: "access of a pod to its device is granted and revoked in its device cgroup" };
  switch (cgroups.kind) {
    case "none": {
      const [what = "", todo = "set NSM_CGROUP_PATH to where the host's cgroups are mounted"] =
        cgroups.problem.split("; ");
      return failure({ ...base, what: what.replace(/^Cannot/, "cannot"), todo });
    }
    case "v1": {
      if (cgroups.refusal === undefined) return fine(check, `version 1 at ${path}`, only);
      const what = `${path}/devices.allow cannot be written to (${cgroups.refusal})`;
      return failure({ ...base, what, todo: "mount the host's /sys/fs/cgroup writable, run as root" });
    }
    case "v2": {
      if (cgroups.bpfProblem === undefined)
        return fine(check, `version 2 at ${path}, BPF programs can be loaded`, only);
      const todo = "give the container CAP_BPF and CAP_NET_ADMIN, or CAP_SYS_ADMIN, or run it privileged";
      return failure({ ...base, what: `version 2, and ${cgroups.bpfProblem}`, todo });
    }
  }
}

/** Whether NSM_CGROUP_PATH leads to the pods of this node's kubelet, and to no others. */
function judgePods(cgroups: CgroupFacts): readonly Finding[] {
  if (cgroups.kind === "none") return [];
  const { path, pods } = cgroups;
  const { trees, known, missing } = pods;
  const base = { check: "pod-cgroups", mechanisms, why: "the device rules of a pod are changed in its own cgroups" };
  const todo =
    "set NSM_CGROUP_PATH to the mount of the host's hierarchy beneath which this node's kubelet has its pods";
  if (trees.length === 0) return [doubt({ ...base, what: `${path} has no cgroup kubepods, where pods are`, todo })];
  if (known.length > 0 && missing.length === known.length) {
    const [first] = missing;
    const what = `no pod that kubelet has given a device has a cgroup beneath ${path}, ${first} for one`;
    return [doubt({ ...base, what, todo })];
  }
  const parents = new Set(trees.map((tree) => dirname(tree)));
  if (parents.size < 2) return [fine("pod-cgroups", `pods are beneath ${trees.join(" and ")}`, only)];
  return [
    doubt({
      ...base,
      what: `${path} holds the pods of more than one kubelet: ${trees.join(", ")}`,
      why: "only pods that the journal or this node's kubelet names are touched, but the path is meant for one node",
      todo,
    }),
  ];
}

/** BPF_F_REPLACE came with Linux 5.6; the number of bpf(2) is known for two machines (kernel/bpf.ts). */
function judgeKernel(release: string, arch: string): readonly Finding[] {
  const [major = 0, minor = 0] = release.split(".").map((part) => Number.parseInt(part, 10));
  const base = { check: "kernel-for-bpf", mechanisms, why: "filters of running pods are changed in place by BPF" };
  if (major * 1000 + minor < 5006) {
    return [
      failure({ ...base, what: `Linux ${release} is older than 5.6`, todo: "run a newer kernel, or cgroups v1" }),
    ];
  }
  if (arch === "x64" || arch === "arm64") return [];
  return [failure({ ...base, what: `BPF is not supported here on ${arch}`, todo: "use x86-64 or arm64" })];
}
