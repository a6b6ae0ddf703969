import type { CheckFacts, FolderFact, PeerFact, ProcessFacts } from "./facts-form.ts";
import { doubt, type Finding, failure, fine } from "./finding.ts";

/** What the environment and the process are like. */
export function judgeProgram(facts: CheckFacts): readonly Finding[] {
  return [
    ...judgeEnvironment(facts),
    ...judgeProcess(facts),
    judgeBudget(facts.budget),
    ...judgePolicies(facts.policies),
  ];
}

/** The programs that the forwarder talks with, and the folders that it writes to. */
export function judgeSurroundings({ peers, managerIds, pluginFolder, stateFolder }: CheckFacts): readonly Finding[] {
  const hasFolder = pluginFolder.nearest === pluginFolder.path;
  const judged = peers.filter(({ check }) => hasFolder || check !== "kubelet"); // no socket where no folder is
  return [
    ...judged.flatMap(judgePeer),
    judgeManager(managerIds),
    judgePluginFolder(pluginFolder),
    ...judgeState(stateFolder),
  ];
}

function judgeBudget({ memoryBytes, shortage, says }: CheckFacts["budget"]): Finding {
  const check = "budgets";
  const words = Object.entries(says).map(([name, amount]) => `${name} ${amount}`);
  const limit =
    memoryBytes === undefined ? "no limit of memory" : `${Math.floor(memoryBytes / 1_048_576)} MiB of memory`;
  const what = `${limit}; peers may have: ${words.join("; ")}`;
  if (shortage === undefined) return fine(check, what);
  return doubt({ check, what, why: shortage, todo: "give the container 256Mi (resources.limits.memory)" });
}

function judgePolicies(policies: CheckFacts["policies"]): readonly Finding[] {
  const check = "registry-policies";
  const todo = "correct NSM_REGISTRY_CLIENT_POLICIES, or leave it unset";
  if (policies.kind === "unusable") {
    const why = "the forwarder does not start without the policies that it is to go by";
    return [failure({ check, what: policies.problem, why, todo })];
  }
  const { names, warnings } = policies;
  const why = "what is not selected is not asked about the registry's answers";
  const odd = warnings.map((what) => doubt({ check, what, why, todo }));
  return odd.length > 0 ? odd : [fine(check, `the registry's answers must pass ${names.join(", ")}`)];
}

function judgeEnvironment({ environment: { problems, warnings } }: CheckFacts): readonly Finding[] {
  const check = "environment";
  const why = "the forwarder does not start with such an environment";
  const wrong = problems.map(({ variable, problem }) =>
    failure({ check, what: `${variable} ${problem}`, why, todo: "see forwarder --help, and the README's table" }),
  );
  const odd = warnings.map((what) =>
    doubt({ check, what, why: "it has no effect", todo: "correct its name, or remove it" }),
  );
  return wrong.length + odd.length > 0 ? [...wrong, ...odd] : [fine(check, "every variable can be read")];
}

/** Numbers of include/uapi/linux/capability.h. */
const needed = [
  { bit: 12n, name: "CAP_NET_ADMIN", why: "settings of VFs, moving and addressing their network devices" },
  {
    bit: 21n,
    name: "CAP_SYS_ADMIN",
    why: "entering the namespaces of clients, and reading the filters of their cgroups",
  },
] as const;
const CAP_SYSLOG = 34n;

function judgeProcess({ process, cgroups, pfList, discovery }: CheckFacts): readonly Finding[] {
  const { capabilities, isUserNamespace, release, arch, selfTestProblem } = process;
  const has = (bit: bigint) => (capabilities >> bit) % 2n === 1n;
  const missing = needed.filter(({ bit }) => !has(bit));
  const todo = "run the container privileged, or add it to securityContext.capabilities";
  const found: Finding[] = missing.map(({ name, why }) =>
    failure({ check: "capabilities", subject: name, what: `this process lacks ${name}`, why, todo }),
  );
  if (isUserNamespace) {
    const why = "its capabilities do not count for the node's devices";
    const what = "this process is in a user namespace";
    found.push(
      failure({ check: "user-namespace", what, why, todo: "run it in the host's (hostUsers: true, or as root)" }),
    );
  }
  if (cgroups.kind === "v2" && !has(CAP_SYSLOG)) {
    const why = "where kernel.kptr_restrict is set, filters that others installed cannot be read without it";
    const what = "this process lacks CAP_SYSLOG";
    found.push(doubt({ check: "capabilities", subject: "CAP_SYSLOG", mechanisms: ["VFIO"], what, why, todo }));
  }
  if (missing.length === 0) found.push(fine("capabilities", needed.map(({ name }) => name).join(", ")));
  // Of what sysfs has of another namespace nothing is said of this one.
  const isElsewhere = discovery.faults.some(({ kind }) => kind === "other-namespace");
  if (!isElsewhere) found.push(...judgeNetns(process, pfList));
  found.push(...judgeOpenFiles(process));
  if (selfTestProblem === undefined) found.push(fine("kernel", `Linux ${release} on ${arch}`));
  else {
    const why = "clients send their network namespaces as descriptors";
    const todo = "run on Node 24 on 64-bit Linux, with descriptors to spare (ulimit -n)";
    found.push(failure({ check: "kernel", what: selfTestProblem, why, todo }));
  }
  return found;
}

/** Without a client it has 48 open; each connection of a client and of an endpoint is some more. */
const FEW_FILES = 64;
const ENOUGH_FILES = 1024;

function judgeOpenFiles({ openFiles = Number.POSITIVE_INFINITY }: ProcessFacts): readonly Finding[] {
  if (openFiles >= ENOUGH_FILES) return [];
  const [check, what] = ["open-files", `this process may have ${openFiles} files open`];
  const todo = `raise the limit to ${ENOUGH_FILES} at least (LimitNOFILE of the runtime, ulimit -n)`;
  if (openFiles < FEW_FILES) return [failure({ check, what, why: "the forwarder has as many without a client", todo })];
  return [
    doubt({ check, what, why: "Requests are refused while so many clients are connected that none is left", todo }),
  ];
}

function judgeNetns({ seesHardware }: ProcessFacts, pfList: CheckFacts["pfList"]): readonly Finding[] {
  const check = "network-namespace";
  if (seesHardware) return [fine(check, "has network devices with hardware behind them")];
  if (pfList.kind === "read" && pfList.config.physicalFunctions.length === 0) return [];
  const what = "no network device here has hardware behind it: this is not the host's network namespace";
  const why = "physical functions and idle virtual ones have their network devices in the host's";
  return [doubt({ check, what, why, todo: "hostNetwork: true in the pod" })];
}

interface PeerWords {
  readonly name: string;
  readonly variable: string;
  readonly why: string;
  readonly todo: string;
}

const peerWords: Readonly<Record<PeerFact["check"], PeerWords>> = {
  "spire-agent": {
    name: "SPIRE agent",
    variable: "SPIFFE_ENDPOINT_SOCKET",
    why: "without an identity the forwarder does not serve",
    todo: "start the SPIRE agent on this node, and mount the folder of its socket (a folder, not the socket)",
  },
  nsmgr: {
    name: "NSMgr",
    variable: "NSM_CONNECT_TO",
    why: "clients come by way of the manager, with which the forwarder registers",
    todo: "start the NSMgr on this node, and mount /var/lib/networkservicemesh",
  },
  kubelet: {
    name: "kubelet's device manager",
    variable: "NSM_DEVICE_PLUGIN_PATH",
    why: "kubelet is offered the VFs there",
    todo: "mount the host's /var/lib/kubelet, and look whether kubelet runs",
  },
  "pod-resources": {
    name: "kubelet's pod resources",
    variable: "NSM_POD_RESOURCES_PATH",
    why: "kubelet says there which pod has which VF",
    todo: "mount the host's /var/lib/kubelet, and look whether kubelet runs",
  },
};

function judgePeer({ check, path, refusal }: PeerFact): readonly Finding[] {
  const { name, variable, why, todo } = peerWords[check];
  if (path === undefined) return [];
  if (refusal === undefined) return [fine(check, `${name} answers at ${path}`)];
  const [what, instead = todo] = {
    ENOENT: [`there is no socket ${path} (${variable})`],
    ECONNREFUSED: [`no process listens at ${path} any more (${variable})`, `restart ${name}`],
    EACCES: [
      `this process may not connect to ${path} (EACCES)`,
      "run as root, and look at the permissions of its folders",
    ],
  }[refusal] ?? [`cannot connect to ${path} (${refusal})`];
  return [failure({ check, what: what ?? refusal, why, todo: instead })];
}

/** Not to pin it is a choice: only a peer that can replace the socket is kept out by that. */
function judgeManager(ids: readonly string[] | undefined): Finding {
  const anyPeer = "any peer that answers at NSM_CONNECT_TO is taken for the manager: NSM_MANAGER_SPIFFE_ID is not set";
  return fine("manager-identity", ids ? `only ${ids.join(" or ")} is taken for the manager` : anyPeer);
}

function judgePluginFolder({ path, nearest, refusal }: FolderFact): Finding {
  const check = "plugin-folder";
  if (refusal === undefined && nearest === path) return fine(check, `${path} can be written to`);
  const what = nearest === path ? refusedFolder(path, refusal) : `there is no folder ${path}`;
  const why = "kubelet looks there for the sockets of its plugins";
  return failure({ check, what, why, todo: "mount the host's /var/lib/kubelet/device-plugins there, writable" });
}

/** What the kernel says of a folder that it does not let us write to. */
function refusedFolder(path: string, refusal: string | undefined): string {
  return refusal === "ENOTDIR" ? `${path} is no folder` : `${path} cannot be written to (${refusal})`;
}

/** File systems in which only the kernel makes files, whatever the permissions of their folders say. */
const ofKernel: readonly (string | undefined)[] = [
  "proc",
  "sysfs",
  "cgroup",
  "cgroup2",
  "debugfs",
  "tracefs",
  "devpts",
];
/** File systems that end with a container or a boot. */
const passing: readonly (string | undefined)[] = ["overlay", "tmpfs", "ramfs"];

function judgeState({ path, nearest, refusal, fileSystem }: FolderFact): readonly Finding[] {
  const check = "state-folder";
  const todo = "mount a folder of the host there (hostPath, DirectoryOrCreate), or set NSM_STATE_PATH";
  const kept = "what a restart must know is kept there";
  if (refusal !== undefined) {
    const isBelowFile = refusal === "ENOTDIR" && nearest !== path;
    const below = isBelowFile ? `${nearest} is no folder` : `${path} cannot be made in ${nearest} (${refusal})`;
    return [failure({ check, what: nearest === path ? refusedFolder(path, refusal) : below, why: kept, todo })];
  }
  if (ofKernel.includes(fileSystem)) {
    const what = `${path} is no folder for files: it is on ${fileSystem}, where only the kernel makes them`;
    return [failure({ check, what, why: kept, todo })];
  }
  if (passing.includes(fileSystem)) {
    const what = `${path} is on ${fileSystem}, which does not outlive the container or the machine's next boot`;
    const why = "after a restart, kubelet's records of running pods would mean nothing";
    return [doubt({ check, what, why, todo })];
  }
  return [fine(check, `${path} can be ${nearest === path ? "written to" : "made"}`)];
}
