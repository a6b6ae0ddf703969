// After a restart: functions that pods may open. The journal says what was given to whom; only that stays given.
import type { DeviceAccess } from "../access/index.ts";
import type { DeviceNumber } from "../kernel/index.ts";
import type { JournalEntry } from "../nsm/index.ts";
import type { DriverBinder, Inventory } from "../sriov/index.ts";
import type { Log } from "../telemetry/index.ts";
import {
  adoptGrant,
  type EarlierGrant,
  type EarlierGrants,
  type KeptVfio,
  type NodeJournal,
  type TokenPods,
} from "../vf/index.ts";

export interface RecoverVfioParts {
  readonly inventory: Inventory;
  readonly binder: DriverBinder;
  /** Or why this node cannot give devices to pods. */
  readonly access: DeviceAccess | Error;
  readonly journal: Pick<NodeJournal, "connections" | "vfioVfs" | "keepVf" | "drop">;
  /** Which pods kubelet has given our devices. */
  readonly pods: Pick<TokenPods, "podsWith">;
  readonly log: Log;
}

/** What there is of an earlier process's VFIO connections. */
export interface RecoveredVfio {
  /** For the service: what stands, and what is to be taken down. */
  readonly connections: readonly JournalEntry[];
  /** Of other mechanisms. */
  readonly others: readonly JournalEntry[];
  readonly earlier: EarlierGrants;
  /** What contradicts the journal: kept back until it is taken back and sound (reconcile.ts). */
  readonly kept: EarlierGrants;
}

/** Books the functions that pods have, and takes from our clients all access that the journal does not tell of. */
export async function recoverVfio(parts: RecoverVfioParts): Promise<RecoveredVfio> {
  const { journal } = parts;
  const access = parts.access instanceof Error ? undefined : parts.access;
  const entries = new Map(journal.connections.map((entry) => [entry.connectionId, entry]));
  const connections: JournalEntry[] = [];
  const earlier: EarlierGrants = new Map();
  const contradicting: EarlierGrants = new Map();
  // All of them first: what is taken from a pod below must leave what another grant of that pod needs.
  const all = [...journal.vfioVfs.values()].map((kept) => ({
    kept,
    left: access && adoptGrant(kept, { access, journal }),
  }));
  for (const { kept, left } of all) {
    const entry = entries.get(kept.connectionId);
    entries.delete(kept.connectionId);
    const problem = takeUp(parts, kept, entry);
    if (entry && problem === undefined && left) {
      earlier.set(kept.address, left);
      connections.push(entry);
      continue;
    }
    if (left) contradicting.set(kept.address, left);
    await keepBack(parts, { kept, left, problem: problem ?? "This node cannot take access back" });
  }
  const others = [...entries.values()].filter(({ mechanism }) => mechanism !== "VFIO");
  for (const { connectionId, mechanism } of entries.values()) {
    // Where a function was touched the journal would tell: none was yet, or it is home again.
    if (mechanism === "VFIO") await journal.drop(connectionId).catch(() => {});
  }
  if (access) await clearStrays(parts, access);
  return { connections, others, earlier, kept: contradicting };
}

/** Nobody knows its connection: nobody gets it, and its pod loses it. */
async function keepBack(
  { inventory, log }: RecoverVfioParts,
  {
    kept,
    left,
    problem,
  }: { readonly kept: KeptVfio; readonly left: EarlierGrant | undefined; readonly problem: string },
): Promise<void> {
  const fields = { vf: kept.address, connection: kept.connectionId };
  log.error("vf-contradicts-journal", { ...fields, problem });
  inventory.raise(kept.address, { code: "unexplained-grant", problem });
  await left?.grant?.revoke().catch((error: unknown) => {
    log.error("access-not-taken-away", { ...fields, error: String(error) });
  });
}

/** Says what contradicts the journal. What was half done, or has another driver now, is taken back by the usual way out. */
function takeUp({ inventory }: RecoverVfioParts, kept: KeptVfio, entry: JournalEntry | undefined): string | undefined {
  const { address, connectionId, tokenId, owner } = kept;
  const record = inventory.get(address);
  if (!record) return "It is not among the virtual functions of this node";
  if (!entry?.connection) return `A pod had it for connection ${connectionId}, of which nothing else is known`;
  try {
    inventory.adopt({ address, connectionId, tokenId, use: "vfio", state: "preparing", ...(owner && { owner }) });
    if (entry.stage === "ready") inventory.setState(connectionId, "ready");
    return undefined;
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}

async function clearStrays({ inventory, binder, pods }: RecoverVfioParts, access: DeviceAccess): Promise<void> {
  const devices: DeviceNumber[] = [];
  for (const { address, driverUse } of inventory.snapshot()) {
    if (driverUse !== "vfio") continue;
    const numbers = await binder.vfio.deviceOf(address).catch(() => undefined);
    if (numbers) devices.push(numbers.device);
  }
  await access.clearStrays(devices, await pods.podsWith(inventory.resources)); // logs by itself
}
