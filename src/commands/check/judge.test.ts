import assert from "node:assert/strict";
import test from "node:test";
import type { PciAddress } from "../../pci/index.ts";
import { recordingTerminal } from "../testing/fakes.ts";
import type { CheckFacts } from "./facts-form.ts";
import { type Finding, mechanisms } from "./finding.ts";
import { judge } from "./judge.ts";
import { reportJson, reportText } from "./report.ts";
import { somePf, soundNode } from "./testing/fakes.ts";

const { vfio, process, discovery, peers, stateFolder, pluginFolder } = soundNode;
const pf = somePf.address;
const portOf = (isUp: boolean, hasCarrier: boolean | undefined) =>
  new Map([[pf, { ifname: "ens6f0", isUp, hasCarrier }]]);
const pfsOf = (more: Partial<typeof somePf>) => ({ ...discovery, pfs: [{ ...somePf, ...more }] });
const noteOf = (kind: "vf-driver-missing" | "no-vfs" | "pf-driver-differs" | "vf-count-differs", message: string) => ({
  ...discovery,
  notes: [{ address: pf, kind, message: `${pf} ${message}` }],
});
const faultOf = (kind: "missing" | "no-driver" | "no-netdev" | "other-namespace", message: string) => ({
  ...discovery,
  pfs: [],
  faults: [{ address: pf, kind, message: `Cannot use ${pf}: ${message}` }],
});
const peersOf = (check: string, refusal: string) =>
  peers.map((one) => (one.check === check ? { ...one, refusal } : one));

const usedOf = (address: PciAddress, ifname: string) => {
  const uses = [{ kind: "master", name: "br0", type: "bridge" }] as const;
  return { kind: "seen", netdevs: new Map([[address, [{ ifname, ifindex: 7, uses }]]]) } as const;
};

const pods = { trees: ["kubepods"], known: ["uid-1"], missing: [] };

interface Row {
  readonly broken: string;
  readonly facts: Partial<CheckFacts>;
  /** level check [mechanisms]: what is said, in order. */
  readonly found: readonly string[];
  readonly says: RegExp;
}

const both = "KERNEL,VFIO";
const rows: readonly Row[] = [
  {
    broken: "a variable",
    facts: { environment: { problems: [{ variable: "TELEMETRY", problem: "is odd" }], warnings: [] } },
    found: [`fail environment ${both}`],
    says: /TELEMETRY is odd/,
  },
  {
    broken: "a variable's name",
    facts: { environment: { problems: [], warnings: ["NSM_NMAE is set and nothing reads it"] } },
    found: [`warn environment ${both}`],
    says: /NSM_NMAE/,
  },
  {
    broken: "the list: there is none",
    facts: {
      pfList: { path: "/x", kind: "unreadable", code: "ENOENT", detail: undefined },
      discovery: { pfs: [], faults: [], notes: [] },
    },
    found: [`fail pf-config ${both}`],
    says: /no file \/x.*forwarder discover > \/x/s,
  },
  {
    broken: "the list: it is wrong in two places",
    facts: {
      pfList: { path: "/x", kind: "wrong", issues: ["/x:1:1: a", "/x:2:1: b"] },
      discovery: { pfs: [], faults: [], notes: [] },
    },
    found: [`fail pf-config ${both}`, `fail pf-config ${both}`],
    says: /x:1:1: a.*x:2:1: b/s,
  },
  {
    broken: "the list: it is empty",
    facts: {
      pfList: { path: "/x", kind: "read", config: { physicalFunctions: [] } },
      discovery: { pfs: [], faults: [], notes: [] },
    },
    found: [`warn pf-config ${both}`],
    says: /lists no physical function/,
  },
  {
    broken: "a physical function: it is not there",
    facts: { discovery: faultOf("missing", "this node has no such PCI function") },
    found: [`fail pf ${both}`],
    says: /0000:3b:00.0: this node has no such PCI function.*correct the address/s,
  },
  {
    broken: "a physical function: no driver",
    facts: { discovery: faultOf("no-driver", "it has no driver; run: modprobe ice") },
    found: [`fail pf ${both}`],
    says: /it has no driver\n.*to do\s+run: modprobe ice/s,
  },
  {
    broken: "a physical function: another network namespace",
    facts: { discovery: faultOf("no-netdev", "its driver has made no network device in this namespace") },
    found: [`fail pf ${both}`],
    says: /hostNetwork: true/,
  },
  {
    broken: "a physical function: sysfs of another network namespace",
    facts: {
      discovery: faultOf(
        "other-namespace",
        "sysfs has ens6f0 (index 4), and link 4 is eth0 on virtio2; nothing was written",
      ),
    },
    found: [`fail network-namespace ${both}`],
    says: /0000:3b:00.0: sysfs has ens6f0 \(index 4\), and link 4 is eth0 on virtio2\n.*hostNetwork: true\) and with the host's \/sys/s,
  },
  {
    broken: "the container: it is not privileged",
    facts: { vfio: { ...vfio, openRefusal: "EPERM" } },
    found: ["fail vfio-nodes VFIO"],
    says: /cannot be opened by this process \(EPERM\).*run the container privileged/s,
  },
  {
    broken: "the driver of virtual functions",
    facts: { discovery: noteOf("vf-driver-missing", "…") },
    found: ["fail vf-driver KERNEL"],
    says: /modprobe iavf/,
  },
  {
    broken: "the firmware's number of VFs",
    facts: { discovery: noteOf("no-vfs", "…") },
    found: [`fail pf ${both}`],
    says: /sriov_totalvfs is 0/,
  },
  {
    broken: "the number in the file",
    facts: {
      discovery: noteOf("vf-count-differs", "has 2 virtual functions, the configuration wants 4; write 0 first"),
    },
    found: [`warn pf ${both}`],
    says: /has 2 virtual functions, the configuration wants 4\n.*to do\s+write 0 first/s,
  },
  {
    broken: "the host's use: of a VF",
    facts: { hostUse: usedOf(somePf.vfs[0]?.address ?? pf, "ens6f0v0") },
    found: [`warn vf-host-use ${both}`],
    says: /0000:3b:00.0: the host uses 1 VF of 2: 0000:3b:01.0 \(ens6f0v0 is a port of br0 \(bridge\)\).*ip link set ens6f0v0 nomaster, or set hostUse: allow/s,
  },
  {
    broken: "nothing, with a PF that has VFs and is the host's uplink",
    facts: { hostUse: usedOf(pf, "ens6f0") },
    found: [],
    says: /the host uses it: ens6f0 is a port of br0 \(bridge\); nothing but setting it up is done to it/,
  },
  {
    broken: "the host's use: of a PF without VFs",
    facts: { hostUse: usedOf(pf, "ens6f0"), discovery: pfsOf({ vfs: [] }) },
    found: [`fail pf-host-use ${both}`],
    says: /the host uses it: ens6f0 is a port.*no virtual functions are made.*echo 8 > .*hostUse: create-vfs/s,
  },
  {
    broken: "nothing, with a PF without VFs on which they may be made",
    facts: {
      hostUse: usedOf(pf, "ens6f0"),
      discovery: pfsOf({ vfs: [], entry: { ...somePf.entry, hostUse: "create-vfs" } }),
    },
    found: [],
    says: /the forwarder makes 8 at its start/,
  },
  {
    broken: "the host's use: it cannot be seen",
    facts: { hostUse: { kind: "unknown", problem: "open a socket: EPERM" } },
    found: [`warn host-use ${both}`],
    says: /does not say which links the host uses: open a socket: EPERM/,
  },
  {
    broken: "the link: down",
    facts: { ports: portOf(false, undefined) },
    found: [`warn pf-link ${both}`],
    says: /ip link set ens6f0 up/,
  },
  { broken: "the carrier", facts: { ports: portOf(true, false) }, found: [`warn pf-link ${both}`], says: /no carrier/ },
  {
    broken: "the carrier where it is required",
    facts: { ports: portOf(true, false), discovery: pfsOf({ entry: { ...somePf.entry, carrier: "require" } }) },
    found: [`fail pf-link ${both}`],
    says: /no carrier/,
  },
  {
    broken: "nothing, with a carrier that does not matter",
    facts: { ports: portOf(true, false), discovery: pfsOf({ entry: { ...somePf.entry, carrier: "ignore" } }) },
    found: [],
    says: /ens6f0 \(ice\), 2 VFs/,
  },
  {
    broken: "nothing: no VFs yet",
    facts: { discovery: pfsOf({ vfs: [], entry: { ...somePf.entry, numVfs: 4 } }) },
    found: [],
    says: /no VFs yet; the forwarder makes 4/,
  },
  {
    broken: "sysfs",
    facts: { sysfsRefusals: new Map([[pf, "EROFS"]]) },
    found: [`fail sysfs ${both}`],
    says: /mounted read-only/,
  },
  {
    broken: "one IOMMU group",
    facts: {
      discovery: pfsOf({
        vfs: somePf.vfs.map((vf, i) =>
          i === 0 ? { ...vf, vfioProblem: "its IOMMU group 70 also holds 0000:3b:00.0" } : vf,
        ),
      }),
    },
    found: ["warn iommu-group VFIO"],
    says: /group 70 also holds 0000:3b:00.0/,
  },
  {
    broken: "every IOMMU group",
    facts: {
      discovery: pfsOf({ vfs: somePf.vfs.map((vf) => ({ ...vf, vfioProblem: "its IOMMU group 1 also holds x" })) }),
    },
    found: ["fail iommu-group VFIO"],
    says: /, and 1 more such.*ACS/s,
  },
  {
    broken: "a slot without IOMMU",
    facts: { discovery: pfsOf({ vfs: somePf.vfs.map((vf) => ({ ...vf, iommuGroup: undefined })) }) },
    found: ["fail iommu-group VFIO"],
    says: /2 VFs of 2 in no IOMMU group/,
  },
  {
    broken: "the IOMMU, once and not for each VF",
    facts: {
      vfio: { ...vfio, iommuGroupCount: 0 },
      discovery: pfsOf({ vfs: somePf.vfs.map((vf) => ({ ...vf, iommuGroup: undefined })) }),
    },
    found: ["fail iommu VFIO"],
    says: /intel_iommu=on/,
  },
  {
    broken: "vfio-pci",
    facts: { vfio: { ...vfio, hasDriver: false } },
    found: ["fail vfio-pci VFIO"],
    says: /modprobe vfio-pci/,
  },
  {
    broken: "the module for clients' memory",
    facts: { vfio: { ...vfio, hasMemoryModule: false } },
    found: ["warn vfio-iommu-type1 VFIO"],
    says: /modprobe vfio_iommu_type1/,
  },
  {
    broken: "/dev/vfio: no folder",
    facts: { vfio: { ...vfio, hasFolder: false, hasContainerNode: false } },
    found: ["fail vfio-nodes VFIO"],
    says: /NSM_VFIO_PATH=\/dev\/vfio/,
  },
  {
    broken: "/dev/vfio: no node",
    facts: { vfio: { ...vfio, hasContainerNode: false } },
    found: ["fail vfio-nodes VFIO"],
    says: /has no device node vfio/,
  },
  {
    broken: "the memory limit",
    facts: { vfio: { ...vfio, memlockBytes: 8 * 1024 * 1024 } },
    found: ["warn memlock VFIO"],
    says: /containerd \(process 700\) may lock only 8 MiB/,
  },
  {
    broken: "the cgroups: none",
    facts: { cgroups: { path: "/x", kind: "none", problem: "Cannot find them; look there" } },
    found: ["fail device-cgroups VFIO"],
    says: /cannot find them\n.*to do\s+look there/s,
  },
  {
    broken: "the cgroups: version 1, read-only",
    facts: { cgroups: { path: "/x", kind: "v1", refusal: "EROFS", pods } },
    found: ["fail device-cgroups VFIO"],
    says: /\/x\/devices.allow cannot be written to \(EROFS\)/,
  },
  {
    broken: "the cgroups: version 2 without BPF",
    facts: { cgroups: { path: "/x", kind: "v2", bpfProblem: "the kernel takes no BPF program (EPERM)", pods } },
    found: ["fail device-cgroups VFIO"],
    says: /CAP_BPF/,
  },
  {
    broken: "the cgroups: without pods",
    facts: { cgroups: { path: "/x", kind: "v2", bpfProblem: undefined, pods: { ...pods, trees: [] } } },
    found: ["warn pod-cgroups VFIO"],
    says: /\/x has no cgroup kubepods.*to do\s+set NSM_CGROUP_PATH/s,
  },
  {
    broken: "the cgroups: of another node",
    facts: { cgroups: { path: "/x", kind: "v2", bpfProblem: undefined, pods: { ...pods, missing: pods.known } } },
    found: ["warn pod-cgroups VFIO"],
    says: /no pod that kubelet has given a device has a cgroup beneath \/x, uid-1 for one/,
  },
  {
    broken: "the cgroups: of several nodes",
    facts: {
      cgroups: {
        path: "/x",
        kind: "v1",
        refusal: undefined,
        pods: { ...pods, trees: ["kubepods", "docker/1f/kubelet/kubepods"] },
      },
    },
    found: ["warn pod-cgroups VFIO"],
    says: /\/x holds the pods of more than one kubelet: kubepods, docker\/1f\/kubelet\/kubepods/,
  },
  {
    broken: "nothing, with pods of two cgroup drivers",
    facts: {
      cgroups: {
        path: "/x",
        kind: "v2",
        bpfProblem: undefined,
        pods: { ...pods, trees: ["kubepods", "kubepods.slice"] },
      },
    },
    found: [],
    says: /pods are beneath kubepods and kubepods.slice/,
  },
  {
    broken: "the kernel for BPF",
    facts: { process: { ...process, release: "5.4.0-150-generic" } },
    found: ["fail kernel-for-bpf VFIO"],
    says: /older than 5.6/,
  },
  {
    broken: "nothing: an old kernel with version 1",
    facts: {
      process: { ...process, release: "4.18.0" },
      cgroups: { path: "/x", kind: "v1", refusal: undefined, pods },
    },
    found: [],
    says: /Linux 4.18.0/,
  },
  {
    broken: "the capabilities",
    facts: { process: { ...process, capabilities: 0n }, cgroups: { path: "/x", kind: "v1", refusal: undefined, pods } },
    found: [`fail capabilities ${both}`, `fail capabilities ${both}`],
    says: /CAP_NET_ADMIN.*CAP_SYS_ADMIN/s,
  },
  {
    broken: "the user namespace",
    facts: { process: { ...process, isUserNamespace: true } },
    found: [`fail user-namespace ${both}`],
    says: /is in a user namespace/,
  },
  {
    broken: "the network namespace",
    facts: { process: { ...process, seesHardware: false } },
    found: [`warn network-namespace ${both}`],
    says: /not the host's network namespace/,
  },
  {
    broken: "the limit of open files",
    facts: { process: { ...process, openFiles: 48 } },
    found: [`fail open-files ${both}`],
    says: /may have 48 files open/,
  },
  {
    broken: "the limit of open files, as soon as there are clients",
    facts: { process: { ...process, openFiles: 256 } },
    found: [`warn open-files ${both}`],
    says: /raise the limit to 1024/,
  },
  {
    broken: "the self test",
    facts: { process: { ...process, selfTestProblem: "Cannot pass" } },
    found: [`fail kernel ${both}`],
    says: /Cannot pass/,
  },
  {
    broken: "the SPIRE agent",
    facts: { peers: peersOf("spire-agent", "ENOENT") },
    found: [`fail spire-agent ${both}`],
    says: /no socket \/run\/spire-agent.sock/,
  },
  {
    broken: "the NSMgr that has died",
    facts: { peers: peersOf("nsmgr", "ECONNREFUSED") },
    found: [`fail nsmgr ${both}`],
    says: /restart NSMgr/,
  },
  {
    broken: "kubelet",
    facts: { peers: peersOf("kubelet", "EACCES") },
    found: [`fail kubelet ${both}`],
    says: /EACCES/,
  },
  {
    broken: "kubelet's folder, and not its socket too",
    facts: { pluginFolder: { ...pluginFolder, nearest: "/" }, peers: peersOf("kubelet", "ENOENT") },
    found: [`fail plugin-folder ${both}`],
    says: /there is no folder \/plugins/,
  },
  {
    broken: "the state folder",
    facts: { stateFolder: { ...stateFolder, refusal: "EROFS" } },
    found: [`fail state-folder ${both}`],
    says: /\/state cannot be made in \/ \(EROFS\)/,
  },
  {
    broken: "the state folder: it is on a file system of the kernel's own",
    facts: { stateFolder: { ...stateFolder, fileSystem: "proc" } },
    found: [`fail state-folder ${both}`],
    says: /\/state is no folder for files: it is on proc/,
  },
  {
    broken: "the memory that it is given",
    facts: {
      budget: { memoryBytes: 64 * 1_048_576, shortage: "The container has 64 MiB", says: { connections: "32 each" } },
    },
    found: [`warn budgets ${both}`],
    says: /64 MiB of memory; peers may have: connections 32 each.*The container has 64 MiB/s,
  },
  {
    broken: "the policies: a mask selects nothing, so everything is allowed",
    facts: { policies: { kind: "selected", names: [], warnings: ["every answer is allowed"] } },
    found: [`warn registry-policies ${both}`],
    says: /every answer is allowed/,
  },
  {
    broken: "the policies: one cannot be run",
    facts: { policies: { kind: "unusable", problem: "Cannot use the policy mask" } },
    found: [`fail registry-policies ${both}`],
    says: /Cannot use the policy mask/,
  },
  {
    broken: "the state folder: it does not last",
    facts: { stateFolder: { ...stateFolder, fileSystem: "overlay" } },
    found: [`warn state-folder ${both}`],
    says: /is on overlay/,
  },
];

const problemsOf = (findings: readonly Finding[]) => findings.filter(({ level }) => level !== "ok");

for (const { broken, facts, found, says } of rows) {
  test(`judge() reports what is wrong with ${broken}, and nothing else`, () => {
    const findings = judge({ ...soundNode, ...facts }, mechanisms);
    const reported = problemsOf(findings).map((one) => `${one.level} ${one.check} ${one.mechanisms.join(",")}`);
    assert.deepEqual(reported, found);
    const text = reportText(findings, recordingTerminal({ columns: 500 }), { mechanisms, isQuiet: false });
    assert.match(text, says);
    for (const { why = "", todo = "" } of problemsOf(findings)) assert.ok(why !== "" && todo !== "");
  });
}

test("judge() says nothing good of the network namespace where sysfs is of another one", () => {
  const findings = judge(
    { ...soundNode, discovery: faultOf("other-namespace", "sysfs has ens6f0; nothing was written") },
    mechanisms,
  );
  const reported = findings
    .filter(({ check }) => check === "network-namespace")
    .map(({ level, subject }) => [level, subject]);
  assert.deepEqual(reported, [["fail", pf]]);
});

test("judge() finds nothing wrong with a sound node", () => {
  assert.deepEqual(problemsOf(judge(soundNode, mechanisms)), []);
});

test("judge() has what peers may have, also where there is no limit of memory", () => {
  const budget = { memoryBytes: undefined, shortage: undefined, says: { connections: "256 each", calls: "9 each" } };
  const found = judge({ ...soundNode, budget }, mechanisms).find(({ check }) => check === "budgets");
  assert.equal(found?.what, "no limit of memory; peers may have: connections 256 each; calls 9 each");
});

test("judge() leaves out what does not concern the mechanisms, and puts failures first", () => {
  const facts = {
    ...soundNode,
    vfio: { ...vfio, hasDriver: false, memlockBytes: 1 },
    stateFolder: { ...stateFolder, fileSystem: "tmpfs" },
  };
  const levels = judge(facts, mechanisms).map(({ level }) => level);
  assert.deepEqual(
    levels,
    levels.toSorted((a, b) => ["fail", "warn", "ok"].indexOf(a) - ["fail", "warn", "ok"].indexOf(b)),
  );
  assert.deepEqual(
    problemsOf(judge(facts, ["KERNEL"])).map(({ check }) => check),
    ["state-folder"],
  );
});

test("reportText() ends with a line for each mechanism, and leaves out what is well on request", () => {
  const findings = judge({ ...soundNode, vfio: { ...vfio, hasDriver: false, memlockBytes: 1 } }, mechanisms);
  const text = reportText(findings, recordingTerminal(), { mechanisms, isQuiet: true });
  assert.match(text, /\n\nKERNEL {2}can work here\nVFIO {4}cannot work here: 1 failure, 1 warning\n$/);
  assert.doesNotMatch(text, /^ok /m);
});

test("reportText() keeps to the width, and paints only where colours are seen", () => {
  const findings = judge({ ...soundNode, vfio: { ...vfio, hasDriver: false, memlockBytes: 1 } }, mechanisms);
  const narrow = reportText(findings, recordingTerminal({ columns: 60 }), { mechanisms, isQuiet: false });
  assert.ok(
    narrow.split("\n").every((line) => line.length <= 60 || !line.slice(13).includes(" ")),
    narrow,
  );
  assert.ok(!narrow.includes("\x1b"));
  const painted = reportText(findings, recordingTerminal({ hasColors: true }), { mechanisms, isQuiet: false });
  assert.ok(painted.includes("\u001b[1m\u001b[31mFAIL"), painted);
});

test("reportJson() says for each mechanism whether it can work", () => {
  const findings = judge({ ...soundNode, vfio: { ...vfio, hasDriver: false } }, mechanisms);
  const json = JSON.parse(reportJson(findings, "1.2.3", mechanisms));
  assert.deepEqual([json.version, json.works], ["1.2.3", { KERNEL: true, VFIO: false }]);
  assert.deepEqual(json.findings[0], findings[0]);
});
