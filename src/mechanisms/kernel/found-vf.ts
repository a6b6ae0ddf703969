// A VF that its client has already, and that no journal explains: the Go original gave it, or a forwarder whose journal is lost. It is
// that client's (docs/decisions/054); to give it another one beside it would fail at the name.
import {
  effectOf,
  type Inventory,
  InventoryError,
  type VfConditionCode,
  type VfRecord,
} from "../../inventory/index.ts";
import { fileKey, type Netns } from "../../kernel/index.ts";
import { type AttachmentState, foundInClient, type HostLinks } from "../../netdev/index.ts";
import type { Node } from "../../node/index.ts";
import type { DesiredKernel, MechanismRequest } from "../../nsm/index.ts";
import type { DriverBinder } from "../../pci/index.ts";
import type { Log } from "../../telemetry/index.ts";
import type { VfJournal } from "../connection-journal.ts";
import { vfLinkOf } from "../netdev-parts.ts";

export interface FoundVfParts {
  readonly links: HostLinks;
  readonly binder: DriverBinder;
  readonly inventory: Inventory;
  readonly journal: Pick<VfJournal, "vfs" | "unrestored">;
  /** Names of PFs. */
  readonly survey: Pick<Node["survey"], "pfs">;
  readonly log: Log;
}

/** What the client has, noted in the inventory as its connection's. */
export interface FoundVf {
  /** The caller's. */
  readonly client: Netns;
  readonly state: AttachmentState;
}

/** Why no client gets them, where they are in a client's namespace. */
const AWAY: readonly VfConditionCode[] = ["netdev-missing", "netdev-unseen", "contradicts-journal"];

/**
 * The VF in the client's namespace that has the name which the Request wants. Undefined, with nothing held, where there is none, where
 * kubelet has not given the token to a pod, and where the journal has the VF for another one. Touches nothing.
 * @throws {NetdevError} as `receive` does.
 */
export async function takeFound(
  parts: FoundVfParts,
  { connectionId, desired }: Pick<MechanismRequest<DesiredKernel>, "connectionId" | "desired">,
  receive: () => Promise<Netns>,
): Promise<FoundVf | undefined> {
  const { inventory, links, log } = parts;
  const { tokenId, interfaceName: name } = desired;
  const away = awayOf(inventory, tokenId);
  if (away.length === 0) return undefined;
  const client = await receive();
  try {
    const addresses = away.map(({ address }) => address);
    const found = await foundInClient(links, { client, name, addresses }, (address) => inHost(parts, address));
    const vf = away.find(({ address }) => address === found?.address);
    const state = found && vf && knownState(parts, { vf, client, tokenId, found: found.state });
    if (vf && state && isNoted(parts, { vf, connectionId, tokenId })) {
      log.info("vf-found-with-client", { vf: vf.address, connection: connectionId, name });
      return { client, state };
    }
  } catch (error) {
    client.close();
    throw error;
  }
  client.close();
  return undefined;
}

/** VFs of the token's resource that no connection holds and the host does not have. Mostly none: then no namespace is received. */
function awayOf(inventory: Inventory, tokenId: string): readonly VfRecord[] {
  const resource = inventory.resourceOf(tokenId);
  if (resource === undefined) return [];
  const away = inventory.snapshot().filter((vf) => {
    const isAway = vf.connectionId === undefined && vf.conditions.some(({ code }) => AWAY.includes(code));
    return isAway && vf.resources.includes(resource) && !vf.conditions.some(isOfOthers);
  });
  if (away.length === 0) return away;
  // A pod has it, by kubelet's word.
  return inventory.devicesOf(resource).some(({ id, allocated }) => id === tokenId && allocated) ? away : [];
}

/** It is quarantined for another cause. */
function isOfOthers(condition: VfRecord["conditions"][number]): boolean {
  return effectOf(condition) === "quarantine" && !AWAY.includes(condition.code);
}

/** As udev names VFs, and as they are called when nothing else is known. */
async function inHost({ inventory, survey, binder, links }: FoundVfParts, address: string) {
  const vf = inventory.snapshot().find((one) => one.address === address);
  const pfName = vf && survey.pfs.get(vf.pf)?.ifname;
  const name = pfName === undefined ? `vf${address.replaceAll(/[^0-9a-f]/g, "")}` : `${pfName}v${vf?.index}`;
  return { name, device: vf && (await vfLinkOf(binder, vf, links.settings?.boot).device()) };
}

/** What the journal has of it, where it has it for this token and in this namespace; else what could be read. */
function knownState(
  { journal }: FoundVfParts,
  of: { readonly vf: VfRecord; readonly client: Netns; readonly tokenId: string; readonly found: AttachmentState },
): AttachmentState | undefined {
  const { vf, client, tokenId, found } = of;
  const entry = journal.vfs.get(vf.address);
  if (entry) {
    const isIts = entry.use === "kernel" && entry.tokenId === tokenId && entry.netns === fileKey(client.id);
    return isIts ? { ...entry.state, clientIndex: found.clientIndex } : undefined;
  }
  const before = journal.unrestored.beforeOf(vf.address)?.state;
  if (!before) return found;
  const { original, kept } = before;
  return { ...found, original: { ...original, index: found.original.index }, ...(kept && { kept }) };
}

function isNoted(
  { inventory }: FoundVfParts,
  {
    vf: { address },
    connectionId,
    tokenId,
  }: { readonly vf: VfRecord; readonly connectionId: string; readonly tokenId: string },
): boolean {
  try {
    inventory.adopt({ address, connectionId, tokenId, use: "kernel", state: "preparing" });
  } catch (error) {
    if (error instanceof InventoryError) return false; // who takes it now gets told why not
    throw error;
  }
  for (const code of AWAY) inventory.clear(address, code);
  return true;
}
