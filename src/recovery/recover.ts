// After a restart: the journal says what the process before was about, the node says what is. Where the two agree, the
// connection is taken up; where the node contradicts the journal, the function is kept back. What comes later: reconcile.ts,
// late-functions.ts.
import { type Clock, startDeadline } from "../async/index.ts";
import type { JournalEntry } from "../nsm/index.ts";
import type { DriverBinder, Inventory, PciAddress } from "../sriov/index.ts";
import type { Log } from "../telemetry/index.ts";
import type { KeptVf, NodeJournal } from "../vf/index.ts";
import { type KeptFunction, takeUp } from "./take-up.ts";

export interface RecoverParts {
  readonly inventory: Inventory;
  readonly binder: DriverBinder;
  readonly journal: NodeJournal;
  readonly clock: Clock;
  readonly log: Log;
}

/** What is there of an earlier process. The maps are shared: whoever settles a function takes it out. */
export interface Recovered {
  /** For the service: what stands, and what is to be taken down. */
  readonly connections: readonly JournalEntry[];
  /** Functions that are with clients, whose namespaces come with their next call. */
  readonly unmet: Map<PciAddress, KeptVf>;
  /** Functions whose network device is in a namespace that nobody knows of. */
  readonly hidden: Set<PciAddress>;
  /** Functions of the journal that the node does not have now. */
  readonly late: Map<PciAddress, KeptFunction>;
  /** Functions of the journal that are kept back, because the node says otherwise. */
  readonly contradicting: Map<PciAddress, KeptVf>;
}

/** So long a driver that has just been bound may take to make its network device. */
const NETDEV_MS = 2_000;

/** Compares the journal with the node and books what each connection holds. Changes nothing on the node. */
export async function recover(parts: RecoverParts): Promise<Recovered> {
  const { journal, log } = parts;
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
  const standing = connections.filter(({ stage }) => stage === "ready").length;
  const [hidden, late] = [left.hidden.size, left.late.size];
  log.info("recovered", { standing, halfDone: connections.length - standing, hidden, late });
  return left;
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
      inventory.restore(vf.address);
      return taken.entry;
    case "absent":
      left.late.set(vf.address, kept);
      log.warn("vf-of-journal-absent", fields);
      return undefined;
    case "contradiction":
      left.contradicting.set(vf.address, vf);
      inventory.restore(vf.address); // The first reason would stand: this one tells more.
      inventory.quarantine(vf.address, taken.problem);
      log.error("vf-contradicts-journal", { ...fields, problem: taken.problem });
      return undefined;
  }
}

/** A function without a network device here that nobody has: it is in some pod, and must not be given to another. */
async function findHidden({ inventory, binder, clock, log }: RecoverParts, left: Recovered): Promise<void> {
  const isIdle = (vf: { readonly address: PciAddress; readonly problem: string | undefined }) =>
    !left.unmet.has(vf.address) && !vf.problem;
  const idle = inventory.snapshot().filter((vf) => vf.driver === vf.kernelDriver && isIdle(vf));
  const deadline = startDeadline(clock, NETDEV_MS, { what: "the network devices of idle functions" });
  await Promise.all(
    idle.map(async ({ address }) => {
      if (await binder.netdevNow(address).catch(() => undefined)) return;
      if (await binder.netdevOf(address, deadline.signal).catch(() => undefined)) return;
      left.hidden.add(address);
      log.error("vf-hidden", { vf: address });
      inventory.quarantine(address, "Its network device is in a namespace that the journal does not know of");
    }),
  );
  deadline.end();
}
