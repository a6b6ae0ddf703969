// This node's virtual functions: found, counted in the inventory, and with the tools to work on them.
import { randomUUID } from "node:crypto";
import type { Clock } from "./async/index.ts";
import type { Host } from "./host.ts";
import { openStateFolder, Rtnl } from "./kernel/index.ts";
import type { PfDoor } from "./kernel-vf-source.ts";
import {
  DriverBinder,
  discover,
  Inventory,
  type PciAddress,
  type PfConfig,
  type PhysicalFunction,
} from "./sriov/index.ts";
import type { Health, Log } from "./telemetry/index.ts";

/** What is known of this node, and the tools to work on it. */
export interface Node {
  readonly inventory: Inventory;
  readonly binder: DriverBinder;
  pfDoor(pf: PciAddress): PfDoor;
}

export interface NodeOptions {
  readonly pfConfig: PfConfig;
  readonly host: Host;
  /** NSM_STATE_PATH */
  readonly statePath: string;
  readonly health: Health;
  readonly clock: Clock;
  readonly log: Log;
}

/**
 * Looks at the node. A physical function that cannot be used is told and left out.
 * @throws when the state folder cannot be used: without its secret, kubelet's records would become untrue.
 */
export async function openNode(options: NodeOptions): Promise<Node> {
  const { pfConfig, host, statePath, health, clock, log } = options;
  const inventory = new Inventory(await tokenNamespace(statePath));
  const beforeCreate = ({ ifname }: { readonly ifname: string }) => bringUp(host, ifname);
  const { pfs, faults, notes } = await discover(pfConfig, { ...host, clock, log, beforeCreate });
  const unusable = health.declare({ code: "pf-unusable", severity: "warning" });
  for (const { address, message } of faults) {
    log.error("pf-unusable", { pf: address, error: message });
    unusable.raise(message, address);
  }
  for (const { address, kind, message } of notes) log.warn(kind, { pf: address, note: message });
  for (const { address, ifname, driver, vfs } of pfs) {
    inventory.sync(address, vfs);
    log.info("pf-found", { pf: address, ifname, driver, vfs: vfs.length });
  }
  const binder = new DriverBinder({
    ...host,
    clock,
    log,
    isManaged: (address) => inventory.get(address as PciAddress) !== undefined,
    onBound: (address, driver) => inventory.setDriver(address, driver),
  });
  return { inventory, binder, pfDoor: pfDoors(pfs, host) };
}

function pfDoors(pfs: readonly PhysicalFunction[], host: Host): Node["pfDoor"] {
  const doors = new Map<PciAddress, PfDoor>(
    pfs.map(({ address, ifname, entry }) => [
      address,
      { port: host.pfPort({ address, ifname }), settings: entry.settings },
    ]),
  );
  return (pf) => {
    const door = doors.get(pf);
    if (!door) throw new Error(`Cannot reach the settings of physical function ${pf}: it was not usable at start`);
    return door;
  };
}

/** Some drivers give virtual functions no address as long as their physical one is down. */
async function bringUp(host: Host, ifname: string): Promise<void> {
  const rtnl = Rtnl.open({ netns: host.netns });
  try {
    const link = await rtnl.linkByName(ifname);
    if (link && !link.up) await rtnl.setLink(link.index, { up: true });
  } finally {
    rtnl.close();
  }
}

/** The secret from which token ids are made: the same on this node for ever, so that kubelet's records stay true. */
async function tokenNamespace(statePath: string): Promise<string> {
  const folder = await openStateFolder(statePath);
  const known = (await folder.read("token-namespace"))?.trim();
  if (known !== undefined && /^[0-9a-f-]{36}$/.test(known)) return known;
  const fresh = randomUUID();
  await folder.replace("token-namespace", `${fresh}\n`);
  return fresh;
}
