// One function of the journal against the node, and what follows for its connection: docs/decisions/013.

import type { JournalEntry } from "../nsm/index.ts";
import type { DriverBinder, Inventory } from "../sriov/index.ts";
import type { KeptVf } from "../vf/index.ts";

/** What the journal has of a function that was out. */
export interface KeptFunction {
  readonly vf: KeptVf;
  /** Of the connection that had it; undefined where the journal has only the function. */
  readonly entry: JournalEntry | undefined;
}

/** What the node makes of it. */
export type TakenUp =
  /** It is booked for its connection, which goes on from this entry. */
  | { readonly kind: "goes-on"; readonly entry: JournalEntry }
  /** It is not among the functions of this node: its physical function is away, not listed or not usable. */
  | { readonly kind: "absent" }
  | { readonly kind: "contradiction"; readonly problem: string };

/** Compares the entry with the node and books what the connection holds. Changes nothing on the node; never throws. */
export async function takeUp(
  { inventory, binder }: { readonly inventory: Inventory; readonly binder: DriverBinder },
  { vf, entry }: KeptFunction,
): Promise<TakenUp> {
  const record = inventory.get(vf.address);
  if (!record) return { kind: "absent" };
  const contradiction = (problem: string) => ({ kind: "contradiction", problem }) as const;
  const was = `It was out for connection ${vf.connectionId}`;
  if (!entry?.connection) return contradiction(`${was}, of which nothing else is known`);
  if (record.driver !== record.kernelDriver) {
    return contradiction(`${was}, and is bound to ${record.driver ?? "no driver"} now`);
  }
  try {
    const isInHost = (await binder.netdevNow(vf.address)) !== undefined;
    inventory.adopt({ ...vf, use: "kernel", state: "preparing" });
    const stands = entry.stage === "ready" && !isInHost;
    if (stands) inventory.setState(vf.connectionId, "ready");
    return { kind: "goes-on", entry: { ...entry, stage: stands ? "ready" : "reclaiming" } };
  } catch (error) {
    return contradiction(error instanceof Error ? error.message : String(error));
  }
}
