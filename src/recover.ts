// After a restart: the journal says what the process before was about, the node says what is. Where the two agree, the
// connection is taken up; where the node contradicts the journal, the function is kept back until a person has looked.
import { type Clock, startDeadline } from "./async/index.ts";
import type { KeptVf, NodeJournal } from "./connection-journal.ts";
import type { Uevent, UeventSource } from "./kernel/index.ts";
import type { JournalEntry } from "./nsm/index.ts";
import type { DriverBinder, Inventory, PciAddress, VfRecord } from "./sriov/index.ts";
import type { Log } from "./telemetry/index.ts";

export interface RecoverParts {
  readonly inventory: Inventory;
  readonly binder: DriverBinder;
  readonly journal: NodeJournal;
  readonly clock: Clock;
  readonly log: Log;
}

/** What is there of an earlier process. */
export interface Recovered {
  /** For the service: what stands, and what is to be taken down. */
  readonly connections: readonly JournalEntry[];
  /** Functions that are with clients, whose namespaces come with their next call. */
  readonly unmet: Map<PciAddress, KeptVf>;
  /** Functions whose network device is in a namespace that nobody knows of. */
  readonly hidden: Set<PciAddress>;
}

/** So long a driver that has just been bound may take to make its network device. */
const NETDEV_MS = 2_000;

/** Compares the journal with the node and books what each connection holds. Changes nothing on the node. */
export async function recover(parts: RecoverParts): Promise<Recovered> {
  const { journal, inventory, log } = parts;
  const entries = new Map(journal.connections.map((entry) => [entry.connectionId, entry]));
  const unmet = new Map<PciAddress, KeptVf>();
  const connections: JournalEntry[] = [];
  for (const vf of journal.vfs) {
    const entry = entries.get(vf.connectionId);
    const problem = await takeUp(parts, { vf, entry }, (stage) => {
      unmet.set(vf.address, vf);
      if (entry) connections.push({ ...entry, stage });
    });
    entries.delete(vf.connectionId); // What is not taken up stays in the journal, for a person or a later start.
    if (problem === undefined) continue;
    log.error("vf-contradicts-journal", { vf: vf.address, connection: vf.connectionId, problem });
    if (inventory.get(vf.address)) inventory.quarantine(vf.address, problem);
  }
  for (const entry of entries.values()) {
    // Where a function was touched the journal would tell: none was yet, or it is home again.
    if (entry.mechanism === "KERNEL") await journal.drop(entry.connectionId).catch(() => {});
    else connections.push(entry);
  }
  const hidden = await findHidden(parts, unmet);
  const standing = connections.filter(({ stage }) => stage === "ready").length;
  log.info("recovered", { standing, halfDone: connections.length - standing, hidden: hidden.size });
  return { connections, unmet, hidden };
}

/** Says what contradicts the journal, or calls back with how to go on. */
async function takeUp(
  { inventory, binder }: RecoverParts,
  { vf, entry }: { readonly vf: KeptVf; readonly entry: JournalEntry | undefined },
  goOn: (stage: JournalEntry["stage"]) => void,
): Promise<string | undefined> {
  const record = inventory.get(vf.address);
  if (!record) return "It is not among the virtual functions of this node";
  if (!entry?.connection) return `It was out for connection ${vf.connectionId}, of which nothing else is known`;
  if (!isOnKernelDriver(record)) {
    return `It was out for connection ${vf.connectionId}, and is bound to ${record.driver ?? "no driver"} now`;
  }
  try {
    const isInHost = (await binder.netdevNow(vf.address)) !== undefined;
    inventory.adopt({ ...vf, use: "kernel", state: "preparing" });
    const stands = entry.stage === "ready" && !isInHost;
    if (stands) inventory.setState(vf.connectionId, "ready");
    goOn(stands ? "ready" : "reclaiming");
    return undefined;
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}

/** A function without a network device here that nobody has: it is in some pod, and must not be given to another. */
async function findHidden(
  { inventory, binder, clock, log }: RecoverParts,
  unmet: ReadonlyMap<PciAddress, KeptVf>,
): Promise<Set<PciAddress>> {
  const hidden = new Set<PciAddress>();
  const idle = inventory.snapshot().filter((vf) => isOnKernelDriver(vf) && !unmet.has(vf.address) && !vf.problem);
  const deadline = startDeadline(clock, NETDEV_MS, { what: "the network devices of idle functions" });
  await Promise.all(
    idle.map(async ({ address }) => {
      if (await binder.netdevNow(address).catch(() => undefined)) return;
      if (await binder.netdevOf(address, deadline.signal).catch(() => undefined)) return;
      hidden.add(address);
      log.error("vf-hidden", { vf: address });
      inventory.quarantine(address, "Its network device is in a namespace that the journal does not know of");
    }),
  );
  deadline.end();
  return hidden;
}

function isOnKernelDriver({ driver, kernelDriver }: VfRecord): boolean {
  return driver === kernelDriver;
}

/**
 * Watches for functions that the kernel puts home because their namespace has ended, until the client has come back.
 * Returns how to stop.
 */
export function watchReturns(
  { inventory, binder, log }: Omit<RecoverParts, "journal" | "clock">,
  { unmet, hidden }: Recovered,
  { uevents, endConnection }: { readonly uevents: UeventSource; readonly endConnection: (id: string) => Promise<void> },
): () => void {
  const look = async (address: PciAddress) => {
    if (!(await binder.netdevNow(address).catch(() => undefined))) return;
    log.info("vf-returned", { vf: address });
    if (hidden.delete(address)) return inventory.restore(address);
    const connectionId = unmet.get(address)?.connectionId;
    if (connectionId !== undefined) await endConnection(connectionId);
  };
  const concerns = (event: Uevent, address: string) =>
    event.action === "lost" || (event.subsystem === "net" && event.devpath.split("/").includes(address));
  const lookAt = (event: Uevent) => {
    for (const address of [...hidden, ...unmet.keys()]) if (concerns(event, address)) void look(address);
  };
  const stop = uevents.subscribe(lookAt);
  // What returned before this was watching.
  for (const address of [...hidden, ...unmet.keys()]) void look(address);
  return stop;
}
