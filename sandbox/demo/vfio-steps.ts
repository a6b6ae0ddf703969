import { commonStandIns } from "../nic/sysfs.ts";
import type { Container } from "../pod/container.ts";
import type { PodCgroups } from "../pod/pod-cgroups.ts";
import type { SandboxPod } from "../sandbox.ts";
import { vfOf } from "./connection-steps.ts";
import type { Stage } from "./stage.ts";
import { expectSame, NotSo, type Step } from "./steps.ts";

type VfioPod = SandboxPod & { readonly container: Container };

const REFUSED = "EPERM";

/** A pod that gets its VF by VFIO: what it may open is for the kernel to say, and read back in the pod itself. */
export function vfioSteps(stage: Stage, cgroups: PodCgroups | undefined): readonly Step[] {
  const pods: VfioPod[] = [];
  const pod = (at: number): VfioPod => {
    const found = pods[at];
    if (found === undefined) throw new NotSo("a pod with a container", "none");
    return found;
  };
  return [
    { title: "two pods with cgroups", run: () => admitPods(stage, pods) },
    { title: "Request answered", run: () => request(pod(0)) },
    { title: "VF bound to vfio-pci", run: () => bound(stage, pod(0)) },
    { title: "opened by the pod", run: () => opened(pod(0)) },
    { title: "and by no other pod", run: () => refused(pod(1), pod(0)) },
    { title: "Close, and opened no more", run: () => closed(pod(0), cgroups) },
  ];
}

async function admitPods({ sandbox }: Stage, pods: VfioPod[]): Promise<string> {
  for (const name of ["vfio-1", "vfio-2"]) pods.push(await sandbox.startVfioPod(name));
  const dirs = await Promise.all(pods.map(({ container }) => container.cgroupDir()));
  expectSame(
    "cgroups as the clients see them",
    dirs,
    pods.map(({ allocation }) => `kubepods/besteffort/pod${allocation.podUid}/*`),
  );
  return `processes ${pods.map(({ container }) => container.pid).join(" and ")}; both may open /dev/null`;
}

async function request({ client, allocation }: VfioPod): Promise<string> {
  const { mechanism } = await client.request();
  expectSame("mechanism", mechanism?.type, "VFIO");
  const { pciAddress, iommuGroup, deviceMajor, deviceMinor } = mechanism?.parameters ?? {};
  const { container, groups } = commonStandIns;
  expectSame(
    "device numbers",
    groups.some(({ major, minor }) => String(major) === deviceMajor && String(minor) === deviceMinor),
    true,
  );
  expectSame("number of the VFIO container", mechanism?.parameters["vfioMinor"], String(container.minor));
  return `${pciAddress}, IOMMU group ${iommuGroup}, device ${deviceMajor}:${deviceMinor}, for pod ${allocation.podUid.slice(0, 8)}…`;
}

async function bound(stage: Stage, pod: VfioPod): Promise<string> {
  const vf = await vfOf(stage, pod);
  const desired = pod.client.connection?.context?.ethernetContext;
  expectSame("driver", vf.driver, "vfio-pci");
  expectSame("network device in the host's namespace", vf.netdev ?? "none", "none");
  expectSame("MAC given by the PF", vf.port.mac, desired?.srcMac);
  expectSame("VLAN given by the PF", vf.port.vlan, desired?.vlanTag);
  return `VF ${vf.index} of ${vf.pf}: MAC ${vf.port.mac}, VLAN ${vf.port.vlan}`;
}

function groupOf({ client }: VfioPod): string {
  return client.connection?.mechanism?.parameters["iommuGroup"] ?? "";
}

async function opened(pod: VfioPod): Promise<string> {
  if (pod.client.connection) await pod.container.makeNodes(pod.client.connection);
  const group = groupOf(pod);
  expectSame("what open(2) says", [await pod.container.tries("vfio"), await pod.container.tries(group)], ["", ""]);
  return `process ${pod.container.pid} made /dev/vfio/vfio and /dev/vfio/${group}, and opened both`;
}

async function refused(other: VfioPod, holder: VfioPod): Promise<string> {
  if (holder.client.connection) await other.container.makeNodes(holder.client.connection);
  const answers = [await other.container.tries("vfio"), await other.container.tries(groupOf(holder))];
  expectSame("what open(2) says", answers, [REFUSED, REFUSED]);
  return `process ${other.container.pid} made the same nodes, and got EPERM for both`;
}

async function closed({ client, container }: VfioPod, cgroups: PodCgroups | undefined): Promise<string> {
  const group = client.connection?.mechanism?.parameters["iommuGroup"] ?? "";
  await client.close();
  expectSame("what open(2) says", [await container.tries("vfio"), await container.tries(group)], [REFUSED, REFUSED]);
  expectSame("rules left", cgroups?.rulesFor([commonStandIns.container, ...commonStandIns.groups]), []);
  return "EPERM for both nodes, which are still there; no rule of ours is left in any cgroup";
}
