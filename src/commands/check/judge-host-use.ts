import { describeHostUse, desiredVfs, type PhysicalFunction, type VfFacts } from "../../pci/index.ts";
import { counted } from "../text.ts";
import type { CheckFacts } from "./facts-form.ts";
import { doubt, type Finding, failure, fine } from "./finding.ts";

/** Which VFs the host itself uses, and what the forwarder does not do to them for that: docs/decisions/027. */
export function judgeHostUse({ discovery, hostUse }: Pick<CheckFacts, "discovery" | "hostUse">): readonly Finding[] {
  if (hostUse.kind === "unknown") {
    const what = `the kernel does not say which links the host uses: ${hostUse.problem}`;
    const why = "a VF is given to no client before that is known";
    const todo = "where links come and go, run it again; else look at the seccomp profile: NETLINK_ROUTE sockets";
    return [doubt({ check: "host-use", what, why, todo })];
  }
  const usedOf = ({ address }: PhysicalFunction | VfFacts) => describeHostUse(hostUse.netdevs.get(address));
  return discovery.pfs.flatMap((pf) => [...judgePf(pf, usedOf(pf)), ...judgeVfs(pf, usedOf)]);
}

type Words = ReturnType<typeof describeHostUse>;

function judgePf(pf: PhysicalFunction, words: Words): readonly Finding[] {
  const { address: subject, entry, vfs, totalVfs } = pf;
  if (!words) return [];
  const check = "pf-host-use";
  const what = `the host uses it: ${words.what}`;
  if (vfs.length > 0 || totalVfs === 0 || entry.hostUse !== "withhold") {
    return [fine(check, `${what}; nothing but setting it up is done to it`, { subject })];
  }
  const why =
    "no virtual functions are made on it: with some drivers that resets the adapter, and the host loses its link";
  const todo = `make them when the host can do without it (echo ${desiredVfs(pf)} > /sys/bus/pci/devices/${subject}/sriov_numvfs), or set hostUse: create-vfs in the file`;
  return [failure({ check, subject, what, why, todo })];
}

function judgeVfs(
  { address: subject, entry, vfs }: PhysicalFunction,
  usedOf: (vf: VfFacts) => Words,
): readonly Finding[] {
  if (entry.hostUse === "allow") return [];
  const used = vfs.flatMap((vf) => {
    const words = usedOf(vf);
    return words ? [{ address: vf.address, ...words }] : [];
  });
  const [first] = used;
  if (!first) return [];
  const more = used.length > 1 ? `, and ${used.length - 1} more such` : "";
  const what = `the host uses ${counted(used.length, "VF")} of ${vfs.length}: ${first.address} (${first.what})${more}`;
  const todo = `${first.toEnd}, or set hostUse: allow in the file`;
  return [doubt({ check: "vf-host-use", subject, what, why: "what the host uses is not offered to pods", todo })];
}
