// After a restart: the journal says what the process before was about, the node says what is. Where the two agree, the
// connection is taken up; where the node contradicts the journal, the function is kept back. What comes later: reconcile.ts,
// late-functions.ts.
import type { JournalEntry } from "../nsm/index.ts";
import type { DriverBinder, Inventory, PciAddress } from "../sriov/index.ts";
import type { Log } from "../telemetry/index.ts";
import type { KeptVf, NodeJournal } from "../vf/index.ts";
import type { RecoveredVfio } from "./recover-vfio.ts";
import { type KeptFunction, takeUp } from "./take-up.ts";

export interface RecoverParts {
  readonly inventory: Inventory;
  readonly binder: DriverBinder;
  readonly journal: NodeJournal;
  readonly log: Log;
}

/** What is there of an earlier process. The maps are shared: whoever settles a function takes it out. */
export interface Recovered {
  /** For the service: what stands, and what is to be taken down. */
  readonly connections: readonly JournalEntry[];
  /** Functions that are with clients, whose namespaces come with their next call. */
  readonly unmet: Map<PciAddress, KeptVf>;
  /** Functions whose network device is not in the host, and is not with a client that the journal knows of. */
  readonly hidden: Set<PciAddress>;
  /** Functions of the journal that the node does not have now. */
  readonly late: Map<PciAddress, KeptFunction>;
  /** Functions of the journal that are kept back, because the node says otherwise. */
  readonly contradicting: Map<PciAddress, KeptVf>;
}

/** Compares the journal with the node and books what each connection holds. Changes nothing on the node, and waits for nothing. */
export async function recover(parts: RecoverParts): Promise<Recovered> {
  const { journal } = parts;
  const entries = new Map(journal.connections.map((entry) => [entry.connectionId, entry]));
  const connections: JournalEntry[] = [];
  const left = {
    connections,
    unmet: new Map(),
    hidden: new Set<PciAddress>(),
    late: new Map(),
    contradicting: new Map(),
  };
  for (const vf of [...journal.vfs.values()]) {
    const entry = entries.get(vf.connectionId);
    entries.delete(vf.connectionId); // What is not taken up stays in the journal.
    const goesOn = await settleKept(parts, left, { vf, entry });
    if (goesOn) connections.push(goesOn);
  }
  for (const entry of entries.values()) {
    // Where a function was touched the journal would tell: none was yet, or it is home again.
    if (entry.mechanism === "KERNEL") await journal.drop(entry.connectionId).catch(() => {});
    else connections.push(entry);
  }
  await findHidden(parts, left);
  return left;
}

/** One line for all that was found, of every mechanism. */
export function logRecovered(log: Log, recovered: Recovered, vfio: Pick<RecoveredVfio, "connections" | "kept">): void {
  const all = [...recovered.connections, ...vfio.connections];
  const standing = all.filter(({ stage }) => stage === "ready").length;
  const contradicting = recovered.contradicting.size + vfio.kept.size;
  const [hidden, late] = [recovered.hidden.size, recovered.late.size];
  log.info("recovered", { standing, halfDone: all.length - standing, contradicting, hidden, late });
}

/** Takes the function up, or notes why not. Answers with the connection that goes on. */
export async function settleKept(
  { inventory, binder, log }: Pick<RecoverParts, "inventory" | "binder" | "log">,
  left: Pick<Recovered, "unmet" | "late" | "contradicting">,
  kept: KeptFunction,
): Promise<JournalEntry | undefined> {
  const { vf } = kept;
  const fields = { vf: vf.address, connection: vf.connectionId };
  const taken = await takeUp({ inventory, binder }, kept);
  switch (taken.kind) {
    case "goes-on":
      left.unmet.set(vf.address, vf);
      inventory.clear(vf.address, "late-unsettled");
      return taken.entry;
    case "absent":
      left.late.set(vf.address, kept);
      log.warn("vf-of-journal-absent", fields);
      return undefined;
    case "contradiction":
      left.contradicting.set(vf.address, vf);
      inventory.raise(vf.address, { code: "contradicts-journal", problem: taken.problem });
      inventory.clear(vf.address, "late-unsettled");
      log.error("vf-contradicts-journal", { ...fields, problem: taken.problem });
      return undefined;
  }
}

/**
 * Withholds each virtual function without a network device here that nobody has by the journal: it is in some pod, or its driver
 * has not made it yet. The two cannot be told apart, and it is not waited for: what comes is cleaned and free (repairs.ts).
 */
async function findHidden({ inventory, binder, log }: RecoverParts, left: Pick<Recovered, "unmet" | "hidden">) {
  const isIdle = (vf: { readonly address: PciAddress; readonly problem: string | undefined }) =>
    !left.unmet.has(vf.address) && !vf.problem;
  const idle = inventory.snapshot().filter((vf) => vf.driver === vf.kernelDriver && isIdle(vf));
  await Promise.all(
    idle.map(async ({ address }) => {
      if (await binder.netdevNow(address).catch(() => undefined)) return;
      left.hidden.add(address);
      log.error("vf-hidden", { vf: address });
      inventory.raise(address, { code: "netdev-missing" });
    }),
  );
}
