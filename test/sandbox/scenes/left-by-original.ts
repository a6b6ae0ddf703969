// What the Go original leaves of a KERNEL connection when it ends, built from the wire contract: a token of the form "sriov-<UUID>" that
// only kubelet knows, the VF's link in the pod's namespace under the client's name, addresses and routes without a mark, the settings
// on the PF. No journal, no lock, nothing else.

import { UnsyncedDisk } from "../../../sandbox/machine/unsynced-disk.ts";
import type { SandboxPod } from "../../../sandbox/sandbox.ts";
import { OUR_PROTOCOL } from "../../../src/netdev/owned.ts";
import type { CrashScene } from "./crash-scene.ts";

/** What a forwarder of ours has kept is gone, the secret of its tokens included: those that pods have are another one's from now on. */
export function forgetState({ crashes }: CrashScene): void {
  crashes.disk = new UnsyncedDisk();
}

/** Addresses and routes of the pod without the mark that we set, each as the original's netlink library sets them. */
export async function withoutMarks({ pod }: SandboxPod): Promise<void> {
  await pod.withRtnl(async (rtnl) => {
    const routes = (await rtnl.routes()).filter(({ protocol }) => protocol === OUR_PROTOCOL);
    for (const { ifindex, address, prefixLength, protocol } of await rtnl.addresses()) {
      if (protocol !== OUR_PROTOCOL) continue;
      await rtnl.deleteAddress({ ifindex, address, prefixLength });
      await rtnl.addAddress({ ifindex, address, prefixLength, noDad: true });
    }
    for (const route of routes) {
      await rtnl.deleteRoute(route).catch(() => {}); // it went with its address
      const { protocol: _mark, ...unmarked } = route;
      await rtnl.addRoute(unmarked);
    }
  });
}
