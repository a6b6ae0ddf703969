import type { PfFaultKind, PfNote, PhysicalFunction } from "../../pci/index.ts";
import { counted } from "../text.ts";
import type { CheckFacts, PfListFact, PortFact } from "./facts-form.ts";
import { doubt, type Finding, failure, fine } from "./finding.ts";

type PfFacts = Pick<CheckFacts, "pfList" | "discovery" | "ports" | "sysfsRefusals" | "vfio">;

/** The list of physical functions, then each of them. */
export function judgePfs(facts: PfFacts): readonly Finding[] {
  const { pfs, faults } = facts.discovery;
  const subjects = new Map(pfs.map((pf) => [pf.address, judgePf(pf, facts)]));
  const broken = faults.map(({ address, kind, message }) => judgeFault(address, kind, message));
  return [...judgeList(facts.pfList), ...broken, ...judgeSysfs(facts), ...[...subjects.values()].flat()];
}

function judgeList(list: PfListFact): readonly Finding[] {
  const { path } = list;
  const check = "pf-config";
  if (list.kind === "unreadable") {
    const { code, detail } = list;
    const refused = `${path} cannot be read${detail === undefined ? "" : `: ${detail}`} (${code})`;
    const what = code === "ENOENT" ? `there is no file ${path}` : refused;
    const set = "set NSM_SRIOV_CONFIG_FILE";
    const todo = detail === undefined ? `forwarder discover > ${path}, or ${set}` : `${set} to the file with the list`;
    return [failure({ check, what, why: "the forwarder does not start without its list of physical functions", todo })];
  }
  if (list.kind === "wrong") {
    const why = "the forwarder does not start with it";
    return list.issues.map((what) => failure({ check, what, why, todo: "correct it there" }));
  }
  const count = list.config.physicalFunctions.length;
  if (count > 0) return [fine(check, `${path} lists ${counted(count, "physical function")}`)];
  const why = "this node offers nothing to clients";
  return [
    doubt({ check, what: `${path} lists no physical function`, why, todo: "see what forwarder discover prints" }),
  ];
}

const followsFromFault: Readonly<Partial<Record<PfFaultKind, string>>> = {
  missing: "nothing of it can be offered",
  "no-netdev": "the settings of its VFs are made through its network device, which must be in this namespace",
  "other-namespace":
    "a link of another device would be taken for its own; the forwarder refuses it before it writes anything",
  "unidentified-netdev": "the forwarder writes to no link of which the kernel does not say whose it is",
  "several-netdevs": "it is not clear through which one the settings of its VFs are made",
};

const mendsFault: Readonly<Partial<Record<PfFaultKind, string>>> = {
  missing: "correct the address (see forwarder discover), or look whether the card is there: lspci -D",
  "is-virtual": "write the address of its physical function",
  "no-netdev": "run in the host's network namespace (hostNetwork: true)",
  "other-namespace": "run in the host's network namespace (hostNetwork: true) and with the host's /sys",
};

function judgeFault(subject: string, kind: PfFaultKind, message: string): Finding {
  const [what = "", ...hints] = message.replace(/^Cannot use \S+: /, "").split("; ");
  const why = followsFromFault[kind] ?? "none of its virtual functions can be offered";
  const todo = mendsFault[kind] ?? (hints.join("; ") || "see what forwarder discover says of it");
  const check = kind === "other-namespace" ? "network-namespace" : "pf";
  return failure({ check, subject, what, why, todo });
}

function judgeSysfs({ sysfsRefusals }: PfFacts): readonly Finding[] {
  const [first] = sysfsRefusals;
  if (!first) return [];
  const [pf, code] = first;
  const what =
    code === "EROFS" ? "sysfs is mounted read-only here" : `${pf}/sriov_numvfs cannot be written to (${code})`;
  const why = "VFs cannot be made, nor bound to other drivers";
  return [
    failure({ check: "sysfs", what, why, todo: "run the container privileged, or mount the host's /sys writable" }),
  ];
}

function judgePf(pf: PhysicalFunction, facts: PfFacts): readonly Finding[] {
  const subject = pf.address;
  const port = facts.ports.get(pf.address);
  const notes = facts.discovery.notes.filter(({ address }) => address === pf.address);
  const found = [
    ...notes.map((note) => judgeNote(pf, note)),
    ...(port ? judgePort(pf, port) : []),
    ...judgeGroups(pf, facts.vfio.iommuGroupCount),
  ];
  if (found.some(({ level, mechanisms }) => level !== "ok" && mechanisms.includes("KERNEL"))) return found;
  const { vfs, totalVfs, ifname, driver, entry } = pf;
  const toMake = Math.min(entry.numVfs ?? totalVfs, totalVfs);
  const functions =
    vfs.length > 0 ? counted(vfs.length, "VF") : `no VFs yet; the forwarder makes ${toMake} at its start`;
  return [...found, fine("pf", `${ifname} (${driver}), ${functions}`, { subject })];
}

function judgeNote({ address, entry }: PhysicalFunction, { kind, message }: PfNote): Finding {
  const subject = address;
  switch (kind) {
    case "vf-driver-missing":
      return failure({
        check: "vf-driver",
        subject,
        mechanisms: ["KERNEL"],
        what: `driver ${entry.vfKernelDriver} is not loaded`,
        why: "it makes the network devices of its virtual functions",
        todo: `modprobe ${entry.vfKernelDriver} on the host, and at each boot (/etc/modules-load.d)`,
      });
    case "switchdev-mode":
      return failure({
        check: "pf-switch-mode",
        subject,
        what: "it is in switchdev mode",
        why: "its VFs reach only what a switch on this node lets them reach: no client is given one",
        todo: `when no pod has one: devlink dev eswitch set pci/${address} mode legacy`,
      });
    case "no-vfs":
      return failure({
        check: "pf",
        subject,
        what: "its firmware allows no virtual function (sriov_totalvfs is 0)",
        why: "there is nothing to offer",
        todo: "turn SR-IOV on in the firmware of the card",
      });
    case "pf-driver-differs":
      return doubt({
        check: "pf",
        subject,
        what: message.replace(`${address} `, ""),
        why: "it works, but one of the two is not what was meant",
        todo: `correct pfKernelDriver in the file, or bind it to ${entry.pfKernelDriver}`,
      });
    case "vf-count-differs":
    case "listed-vf-missing": {
      const [what = "", ...hints] = message.replace(`${address} `, "").split("; ");
      const todo = hints.at(-1) ?? "correct the file";
      return doubt({ check: "pf", subject, what, why: "the file and the node differ; the node counts", todo });
    }
  }
}

function judgePort({ address: subject, entry }: PhysicalFunction, { ifname, isUp, hasCarrier }: PortFact): Finding[] {
  if (!isUp) {
    const why = "its VFs carry no traffic, and some drivers give them no address";
    return [doubt({ check: "pf-link", subject, what: `${ifname} is down`, why, todo: `ip link set ${ifname} up` })];
  }
  if (hasCarrier !== false || entry.carrier === "ignore") return [];
  const what = `${ifname} has no carrier`;
  const todo = "look at its cable and at the switch, or set carrier: ignore in the file";
  return entry.carrier === "require"
    ? [failure({ check: "pf-link", subject, what, why: "its VFs are unhealthy: carrier: require", todo })]
    : [doubt({ check: "pf-link", subject, what, why: "its VFs reach nothing", todo })];
}

/** Without any group on the node, one finding about the node says it all. */
function judgeGroups({ address: subject, vfs }: PhysicalFunction, iommuGroupCount: number): readonly Finding[] {
  if (iommuGroupCount === 0 || vfs.length === 0) return [];
  const base = { check: "iommu-group", subject, mechanisms: ["VFIO"] } as const;
  const lone = vfs.filter(({ iommuGroup }) => iommuGroup === undefined);
  if (lone.length > 0) {
    const what = `${counted(lone.length, "VF")} of ${vfs.length} in no IOMMU group`;
    const why = "the kernel gives only whole groups to VFIO";
    return [failure({ ...base, what, why, todo: "look in the firmware whether the IOMMU covers this slot" })];
  }
  const shared = vfs.filter(({ vfioProblem }) => vfioProblem !== undefined);
  const [first] = shared;
  if (!first) return [fine("iommu-group", "each VF in a group of ours", base)];
  const what = `${first.address}: ${first.vfioProblem}${shared.length > 1 ? `, and ${shared.length - 1} more such` : ""}`;
  const why = "a group goes to VFIO as a whole, and what is not ours stays with its driver";
  const todo = "put the card into a slot whose ports have ACS, or turn ACS on in the firmware";
  const level = shared.length === vfs.length ? failure : doubt;
  return [level({ ...base, what, why, todo })];
}
