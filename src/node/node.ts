// This node's VFs: found, recorded in the inventory, and with the tools to work on them.
import type { Clock, Random } from "../async/index.ts";
import { Inventory } from "../inventory/index.ts";
import type { StateFolder } from "../kernel/index.ts";
import { DriverBinder, type DriverBinderOptions, type PciAddress, type PfConfig } from "../pci/index.ts";
import type { Health, Log } from "../telemetry/index.ts";
import type { Host } from "./host.ts";
import { type PfDoor, PfSurvey, type PfSurveyOptions } from "./pf-survey.ts";
import { reportVfConditions } from "./vf-health.ts";
import { HostUseWithholding } from "./withhold-host-use.ts";

/** What is known of this node, and the tools to work on it. */
export interface Node {
  readonly inventory: Inventory;
  readonly binder: DriverBinder;
  /** For a later observation of the node. */
  readonly survey: PfSurvey;
  /** What the host uses of it. */
  readonly hostUse: HostUseWithholding;
  pfDoor(pf: PciAddress): PfDoor;
  /** Observes nothing any more, and waits for no driver. */
  close(): void;
}

interface NodeOptions {
  readonly pfConfig: PfConfig;
  readonly host: Host;
  /** NSM_STATE_PATH */
  readonly state: StateFolder;
  readonly health: Health;
  /** Called with every try to change a driver. */
  readonly onTried?: DriverBinderOptions["onTried"];
  readonly clock: Clock;
  readonly log: Log;
  /** Gives up what is waited for. */
  readonly signal?: AbortSignal;
}

/**
 * Observes the node. A PF that cannot be used is reported and left out.
 * @throws when the state folder cannot be used: without its secret, kubelet's records would become untrue; the signal's reason.
 */
export async function openNode(options: NodeOptions): Promise<Node> {
  const { pfConfig, host, state, health, onTried, clock, log, signal } = options;
  const inventory = new Inventory(await tokenNamespace(state, host.random));
  reportVfConditions(inventory, health);
  const hostUse = new HostUseWithholding({ host, inventory, config: () => survey.ours, log });
  const refuseCreation: PfSurveyOptions["refuseCreation"] = (pf) => hostUse.refuseCreation(pf);
  const survey = new PfSurvey({ pfConfig, host, inventory, refuseCreation, health, clock, log });
  await survey.begin(signal);
  await hostUse.observe().catch((error: unknown) => log.error("host-use-not-observed", { error: String(error) }));
  const binder = new DriverBinder({
    ...host,
    clock,
    log,
    // What is quarantined is not ours to bind: the pod whose namespace it may be in would lose it.
    isManaged(address) {
      const vf = inventory.get(address);
      return vf !== undefined && vf.state !== "quarantined";
    },
    refuseChange: (address) => hostUse.refuse(address),
    connectionOf: (address) => inventory.get(address)?.connectionId,
    ...(onTried && { onTried }),
    onBound: (address, driver) => inventory.setDriver(address, driver),
  });
  const close = () => {
    survey.close();
    hostUse.close();
  };
  return { inventory, binder, survey, hostUse, pfDoor: (pf) => survey.door(pf), close };
}

/** The secret from which token ids are made: the same on this node for ever, so that kubelet's records stay true. */
async function tokenNamespace(folder: StateFolder, random: Random): Promise<string> {
  const known = (await folder.read("token-namespace"))?.trim();
  if (known !== undefined && /^[0-9a-f-]{36}$/.test(known)) return known;
  const fresh = random.uuid();
  await folder.replace("token-namespace", `${fresh}\n`);
  return fresh;
}
