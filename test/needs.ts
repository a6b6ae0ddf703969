// Gates for tests that need more than Node: they skip with a reason, and fail where a job promised that they run.
import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { TestContext } from "node:test";
import { KNOWN_LACK } from "../tools/test-counts.ts";

/** What a test may need of the machine. Each has a probe below. */
export type Need = keyof typeof probes;

/** Each probe tries the thing itself rather than asking for a version, and leaves nothing behind. */
const probes = {
  /** User 0 of the first user namespace: a root made by `unshare -r` has few of its powers. */
  root: isRoot,
  /** May make network namespaces; true for a root made by `unshare -r` too. */
  netns: () => runs("unshare", "-n", "true"),
  userns: () => runs("unshare", "-rn", "true"),
  veth: () => makesLink("veth", "peer", "name", "probe1"),
  bridge: () => makesLink("bridge"),
  /** A tap device, through /dev/net/tun. */
  tap: () => runs("unshare", "-n", "ip", "tuntap", "add", "probe0", "mode", "tap"),
  /** VLAN devices (8021q). */
  vlan: () => runs("unshare", "-n", "sh", "-ec", VLAN_ON_VETH),
  bond: () => makesLink("bond"),
  vrf: () => makesLink("vrf", "table", "9"),
  /** Qdiscs and filters: pfifo, clsact, u32. */
  tc: () => runs("unshare", "-n", "sh", "-ec", FILTER_ON_VETH),
  "cgroup1-devices": () => makesCgroup(mountPoints("cgroup", "devices")),
  cgroup2: () => makesCgroup(mountPoints("cgroup2")),
  /** Version 1, or 2 where the root gives its children the controller. */
  "memory-cgroup": () => makesCgroup(mountPoints("cgroup", "memory")) || givesMemory(mountPoints("cgroup2")),
  "pids-cgroup": () => makesCgroup(mountPoints("cgroup", "pids")),
  /** CAP_SYS_ADMIN or CAP_BPF of the first user namespace. */
  bpf: () => isRoot() && (hasCapability(21) || hasCapability(39)),
  /** Programs before all qdiscs (Linux 6.6): as root the kernel's own names say it. */
  tcx: () => readText("/proc/kallsyms").includes(" tcx_prog_attach"),
  mknod: makesDeviceNodes,
  /** A browser for the status page. */
  chromium: () => runs("chromium", "--version"),
  kustomize: () => runs("kustomize", "version"),
  /** Helm, or its engine alone (tools/helm-render). */
  helm: () => runs("helm", "version") || runs("helm-render", "version"),
  go: () => runs("go", "version"),
} as const satisfies Record<string, () => boolean>;

const answers = new Map<Need, boolean>();

/** Whether this machine has the thing; probed once per process. */
export function has(want: Need): boolean {
  const known = answers.get(want);
  if (known !== undefined) return known;
  const answer = probes[want]();
  answers.set(want, answer);
  return answer;
}

/**
 * Skips the test where the machine lacks something, and says what: `if (!needs(t, "root", "veth")) return;`. A CI job lists
 * in TEST_PROMISES (`root,netns,-vlan`) what its machine has; a skip there is a failure, so a whole tier can never fall silent.
 * With a minus it says what the machine is known to lack: that skip is reported, and not counted.
 */
export function needs(t: TestContext, ...wants: readonly Need[]): boolean {
  return gate(t, wants, { has, promises: process.env["TEST_PROMISES"] ?? "" });
}

/** The rule of `needs`, with the machine and its promises handed in. */
export function gate(
  t: Pick<TestContext, "skip">,
  wants: readonly Need[],
  machine: { readonly has: (want: Need) => boolean; readonly promises: string },
): boolean {
  const unknown = unknownPromises(machine.promises);
  if (unknown.length > 0) throw new Error(`TEST_PROMISES names what no test knows: ${unknown.join(", ")}`);
  const missing = wants.filter((want) => !machine.has(want));
  const promised = namesOf(machine.promises);
  const broken = missing.filter((want) => promised.includes(want));
  if (broken.length > 0) throw new Error(`This job promises ${broken.join(", ")}, and the machine has it not`);
  const isKnown = missing.every((want) => promised.includes(`-${want}`));
  if (missing.length > 0) t.skip(`${isKnown ? KNOWN_LACK : "needs "}${missing.join(", ")}`);
  return missing.length === 0;
}

/** The names that TEST_PROMISES may hold. */
export const knownNeeds = Object.keys(probes) as readonly Need[];

/** The names in a TEST_PROMISES that no probe has: a misspelt one would promise nothing, and nothing would say so. */
export function unknownPromises(promises: string): readonly string[] {
  return namesOf(promises).filter((name) => !(name.replace(/^-/, "") in probes));
}

/** Of these, what the job has promised. */
export function promisedOf(wants: readonly Need[]): readonly Need[] {
  const promised = namesOf(process.env["TEST_PROMISES"] ?? "");
  return wants.filter((want) => promised.includes(want));
}

function namesOf(promises: string): readonly string[] {
  const names = promises.split(",").map((name) => name.trim());
  return names.filter((name) => name !== "");
}

function isRoot(): boolean {
  return process.getuid?.() === 0 && /^\s*0\s+0\s+4294967295\s*$/.test(readText("/proc/self/uid_map"));
}

function runs(command: string, ...args: readonly string[]): boolean {
  return spawnSync(command, args, { stdio: "ignore", timeout: 100_000 }).status === 0;
}

/** Makes a link of the kind in a namespace that goes away with the command. */
function makesLink(kind: string, ...options: readonly string[]): boolean {
  return runs("unshare", "-n", "ip", "link", "add", "name", "probe0", "type", kind, ...options);
}

const VLAN_ON_VETH =
  "ip link add probe0 type veth peer name probe1; ip link add link probe0 name probe2 type vlan id 9";
const FILTER_ON_VETH = [
  "ip link add probe0 type veth peer name probe1",
  "tc qdisc add dev probe0 root pfifo",
  "tc qdisc add dev probe0 clsact",
  "tc filter add dev probe0 ingress u32 match u32 0 0 classid 1:1",
].join("; ");

function readText(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}

/** Where file systems of the type are mounted whose options hold the word. */
export function mountPoints(type: string, option?: string): readonly string[] {
  const rows = readText("/proc/self/mounts")
    .split("\n")
    .map((line) => line.split(" "));
  const found = rows.filter((row) => row[2] === type && (!option || row[3]?.split(",").includes(option)));
  return found.map((row) => row[1] ?? "");
}

function makesCgroup(mounts: readonly string[]): boolean {
  return mounts.some((mount) => {
    const folder = join(mount, `probe-${process.pid}`);
    try {
      mkdirSync(folder);
      rmdirSync(folder);
      return true;
    } catch {
      return false;
    }
  });
}

function givesMemory(mounts: readonly string[]): boolean {
  const given = mounts.filter((mount) =>
    readText(join(mount, "cgroup.subtree_control")).split(/\s/).includes("memory"),
  );
  return makesCgroup(given);
}

/** Effective capabilities by number, include/uapi/linux/capability.h. */
function hasCapability(number: number): boolean {
  const effective = /^CapEff:\s*([0-9a-f]+)$/m.exec(readText("/proc/self/status"))?.[1] ?? "0";
  return ((BigInt(`0x${effective}`) >> BigInt(number)) & 1n) === 1n;
}

function makesDeviceNodes(): boolean {
  const folder = mkdtempSync(join(tmpdir(), "probe-"));
  try {
    return runs("mknod", join(folder, "null"), "c", "1", "3");
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
