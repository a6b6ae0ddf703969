// What this node can give to clients, fitted together: each mechanism with what the previous instance left of it.
import type { DeviceAccess } from "../access/index.ts";
import type { Clock, UndoStack } from "../async/index.ts";
import type { HostLinks } from "../netdev/index.ts";
import type { Host, Node } from "../node/index.ts";
import type { DesiredVfio, MechanismDriver, MechanismDrivers } from "../nsm/index.ts";
import type { PciAddress } from "../pci/index.ts";
import type { Log, Metrics } from "../telemetry/index.ts";
import type { NodeJournal } from "./connection-journal.ts";
import { VfHolds } from "./held-vf.ts";
import { keepHostSide } from "./host-side.ts";
import { type KernelParts, kernelDriver } from "./kernel/kernel-attachment.ts";
import { noopDriver } from "./noop.ts";
import { type VfioParts, vfioDriver } from "./vfio/vfio-attachment.ts";
import type { AdoptedGrants } from "./vfio/vfio-entry.ts";

export interface MechanismParts extends Node, Pick<KernelParts, "onMoved"> {
  readonly links: HostLinks;
  /** What `openAccess` answered. */
  readonly access: DeviceAccess | Error;
  readonly pods: VfioParts["pods"];
  readonly journal: NodeJournal;
  readonly grants: AdoptedGrants;
  readonly clock: Clock;
  readonly log: Log;
}

/** The mechanisms of this node. */
export function mechanisms(parts: MechanismParts): MechanismDrivers {
  const { access, links, binder } = parts;
  const isLinkSound = async (address: PciAddress) => {
    const netdev = await binder.netdevNow(address);
    if (netdev) await links.verified(address, netdev.ifindex);
    return netdev !== undefined;
  };
  const holds = new VfHolds({ ...parts, isLinkSound });
  const { random } = links;
  if (!(access instanceof Error)) binder.beforeVfio((address) => keepHostSide(parts, address));
  return {
    KERNEL: kernelDriver({ ...parts, holds, watchPod: podWatch(parts) }),
    VFIO: access instanceof Error ? refusing(access) : vfioDriver({ ...parts, random, holds, access }),
    NOOP: noopDriver,
  };
}

/** By the cgroup of the pod that has the token; where none is found, kubelet's list of pods must do. */
function podWatch({ access, pods, log }: Pick<MechanismParts, "access" | "pods" | "log">): KernelParts["watchPod"] {
  return async ({ tokenId, connectionId }) => {
    try {
      const pod = await pods.podOf(tokenId);
      if (pod && !(access instanceof Error)) return await access.watch(pod, connectionId);
    } catch (error) {
      log.debug("pod-not-watched", { connection: connectionId, error: String(error) });
    }
    return () => {};
  };
}

/** The device cgroups of this node, or why there are none: everything else works without. */
export function openAccess(
  host: Host,
  parts: { readonly metrics: Metrics; readonly clock: Clock; readonly log: Log },
  undo: UndoStack,
): DeviceAccess | Error {
  try {
    const access = host.openAccess(parts);
    undo.push("access to devices", () => access.close());
    return access;
  } catch (error) {
    const reason = error instanceof Error ? error : new Error(String(error));
    parts.log.warn("vfio-unavailable", { reason: reason.message });
    return reason;
  }
}

/** A pod whose cgroup has gone has ended, long before kubelet's list says so. Returns how to stop. */
export function endWithPods(
  access: DeviceAccess | Error,
  endConnection: (connectionId: string) => Promise<void>,
  log: Log,
): () => void {
  if (access instanceof Error) return () => {};
  return access.onPodGone((connection) => {
    log.info("pod-has-ended", { connection });
    void endConnection(connection);
  });
}

/** Every Request learns why. */
function refusing(reason: Error): MechanismDriver<DesiredVfio> {
  return {
    open: () => Promise.reject(reason),
    adopt() {
      throw reason;
    },
  };
}
