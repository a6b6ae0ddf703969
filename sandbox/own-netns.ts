// Network namespaces that this project made, and the kernel's proof of it. A sandbox forwarder moves and renames whatever link has the
// ifindex of a pretended VF; in a namespace that other processes use that has taken a machine off its network.
import { readFileSync, readlinkSync } from "node:fs";
import { Netns, Rtnl } from "../src/kernel/index.ts";

/**
 * The mark of a namespace: a further name of its own loopback device (Linux 5.5) that holds the namespace's inode number. It lives
 * and dies with the namespace, goes with it to every process, and no environment variable can pretend it.
 */
const MARK = "sandbox-netns-";
const CAP_NET_ADMIN = 12n;

/** What a shell does between unshare and the command: it marks no namespace but one that its caller is not in. */
const MARK_AND_RUN = `outside=$1; shift
inode=$(readlink /proc/self/ns/net | tr -dc 0-9)
if [ "$inode" = "$outside" ]; then echo "Cannot run $1: still in the network namespace $outside of the caller" >&2; exit 1; fi
ip link set lo up && ip link property add dev lo altname "${MARK}$inode" && exec "$@"`;

/**
 * The words before a command that give it a marked network namespace, in which sandbox forwarders may run; root makes one, others
 * as root of a user namespace of their own. `unshare`, the shell and the command are one process.
 */
export function inOwnNetns(...flags: readonly string[]): readonly string[] {
  const asRoot = process.getuid?.() === 0 ? [] : ["--map-root-user"];
  return ["unshare", ...asRoot, "--net", ...flags, "sh", "-c", MARK_AND_RUN, "sh", ownInode()];
}

/** A new, empty namespace with the mark. @throws {KernelError} EPERM without the privilege. */
export async function createOwnNetns(): Promise<Netns> {
  const netns = Netns.create();
  try {
    await withLoopback(netns, async (rtnl, lo) => rtnl.setLink(lo.index, { addAltNames: [markOf(netns)] }));
    return netns;
  } catch (error) {
    netns.close();
    throw error;
  }
}

/**
 * Refuses a namespace that this project did not make. A process without CAP_NET_ADMIN may have any: there the kernel itself refuses
 * whatever would change a link.
 * @throws {ForeignNetnsError} naming the namespaces, and the command to use.
 */
export async function requireOwnNetns(netns: Netns): Promise<void> {
  if (!hasNetAdmin()) return;
  const first = netnsOfFirstProcess();
  const isMarked = await withLoopback(netns, async (_, { altNames }) => altNames.includes(markOf(netns)));
  if (isMarked && first !== nameOf(netns)) return;
  throw new ForeignNetnsError(
    `Cannot run a sandbox forwarder in the network namespace ${nameOf(netns)}: the sandbox did not make it ` +
      `(${isMarked ? "process 1 is in it" : `lo has no name ${markOf(netns)} there`}; this process is in net:[${ownInode()}], ` +
      `process 1 in ${first ?? "one that may not be read"}). Its links would be taken for pretended VFs. Start it by ` +
      "npm start, npm test or npm run bench, or with real links of its own (realLinks)",
  );
}

/** The sandbox was about to work in a network namespace that another process made. */
export class ForeignNetnsError extends Error {
  override readonly name = "ForeignNetnsError";
}

async function withLoopback<T>(
  netns: Netns,
  act: (rtnl: Rtnl, lo: { readonly index: number; readonly altNames: readonly string[] }) => Promise<T>,
): Promise<T> {
  const rtnl = Rtnl.open({ netns });
  try {
    const lo = await rtnl.linkByName("lo");
    if (!lo)
      throw new ForeignNetnsError(`Cannot use the network namespace ${nameOf(netns)}: it has no loopback device`);
    return await act(rtnl, lo);
  } finally {
    rtnl.close();
  }
}

function markOf(netns: Netns): string {
  return `${MARK}${netns.id.ino}`;
}

/** As the kernel writes it, see `ls -l /proc/self/ns/net`. */
function nameOf(netns: Netns): string {
  return `net:[${netns.id.ino}]`;
}

function ownInode(): string {
  return readlinkSync("/proc/self/ns/net").replace(/\D/g, "");
}

/** Not to be read by a process that may not trace process 1. */
function netnsOfFirstProcess(): string | undefined {
  try {
    return readlinkSync("/proc/1/ns/net");
  } catch {
    return undefined;
  }
}

/** Of this process, effective or to be had: CapPrm, capabilities(7). */
function hasNetAdmin(): boolean {
  const [, permitted = "0"] = /^CapPrm:\s*([0-9a-f]+)$/m.exec(readFileSync("/proc/self/status", "utf8")) ?? [];
  return ((BigInt(`0x${permitted}`) >> CAP_NET_ADMIN) & 1n) === 1n;
}
