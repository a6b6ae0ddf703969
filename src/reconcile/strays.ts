// Access of pods to our VFs that the journal does not have, at a start: an earlier instance's goes, the Go original's stays.
import type { DeviceAccess } from "../access/index.ts";
import { conditionOf, type Inventory, isTokenId } from "../inventory/index.ts";
import type { DeviceNumber } from "../kernel/index.ts";
import type { PodsOfTokens } from "../kubelet/index.ts";
import { rulesOfOriginal } from "../mechanisms/index.ts";
import type { Node } from "../node/index.ts";
import type { PciAddress } from "../pci/index.ts";

interface StrayParts {
  readonly node: Pick<Node, "inventory" | "binder">;
  readonly pods: Pick<PodsOfTokens, "read" | "podsWith">;
}

/** The node of one VF, which all of its IOMMU group have. */
interface VfNode {
  readonly address: PciAddress;
  readonly device: DeviceNumber;
}

/** Takes from our clients all access to our VFs that neither the journal has nor the Go original has given. */
export async function clearStrays({ node, pods }: StrayParts, access: DeviceAccess): Promise<void> {
  const { inventory, binder } = node;
  const nodes: VfNode[] = [];
  for (const { address, driverUse } of inventory.snapshot()) {
    if (driverUse !== "vfio") continue;
    const numbers = await binder.vfio.deviceOf(address).catch(() => undefined);
    if (numbers) nodes.push({ address, device: numbers.device });
  }
  const kept = await keepOriginals(inventory, { access, nodes, uids: await podsOfOriginal(inventory, pods) });
  const devices = nodes.map(({ device }) => device);
  await access.clearStrays(devices, await pods.podsWith(inventory.resources), kept); // logs by itself
}

/** Pods with tokens that this node did not make and no connection of the journal has. */
async function podsOfOriginal(inventory: Inventory, pods: StrayParts["pods"]): Promise<ReadonlySet<string>> {
  const known = [...((await pods.read()) ?? [])].filter(([id, { resource }]) => {
    return isTokenId(id) && inventory.resources.includes(resource) && inventory.resourceOf(id) === undefined;
  });
  return new Set(known.map(([, { podUid }]) => podUid));
}

/** No other client gets a VF that the original has let a pod open. Answers with what those pods keep. */
async function keepOriginals(
  inventory: Inventory,
  found: { readonly access: DeviceAccess; readonly nodes: readonly VfNode[]; readonly uids: ReadonlySet<string> },
): Promise<ReadonlyMap<string, readonly DeviceNumber[]>> {
  const { access, nodes, uids } = found;
  const kept = new Map<string, readonly DeviceNumber[]>();
  const free = nodes.filter(({ address }) => inventory.get(address)?.connectionId === undefined);
  for (const uid of uids) {
    const devices = free.map(({ device }) => device);
    const rules = await rulesOfOriginal(access, uid, devices);
    const isIts = (device: DeviceNumber) =>
      rules.some(({ major, minor }) => major === device.major && minor === device.minor);
    kept.set(uid, devices.filter(isIts));
    for (const { address } of free.filter(({ device }) => isIts(device))) {
      const vf = inventory.get(address);
      const others = (vf && conditionOf(vf, "open-to-pod")?.pods) ?? [];
      inventory.raise(address, { code: "open-to-pod", pods: [...others, uid] });
    }
  }
  return kept;
}
