// What the stories of VFIO share: real cgroups, real device nodes in place of VFIO's, and a client that speaks as cmd-nsc does.
import assert from "node:assert/strict";
import { commonStandIns } from "../../../sandbox/nic/sysfs.ts";
import type { Client, ClientOptions } from "../../../sandbox/nsm/client.ts";
import type { Container } from "../../../sandbox/pod/container.ts";
import { PodCgroups } from "../../../sandbox/pod/pod-cgroups.ts";
import type { SandboxPod } from "../../../sandbox/sandbox.ts";
import { has, type Need } from "../../needs.ts";
import { installAt, onlyNull, withAnyMknod } from "../../scenes/device-filters.ts";
import { mountOf } from "../../scenes/pod-cgroups.ts";
import type { Scene } from "./story.ts";

export const VFIO_NEEDS: readonly Need[] = ["root", "netns", "veth", "bridge", "cgroup1-devices", "mknod"];
export const UNIFIED_NEEDS: readonly Need[] = ["root", "netns", "veth", "bridge", "cgroup2", "bpf", "mknod"];

/**
 * Cgroups of version 2 where the machine has them. Containers may open /dev/null and make any node, as a runtime lets them.
 * The caller closes them.
 */
export function unifiedCgroups(): PodCgroups | undefined {
  if (!UNIFIED_NEEDS.every(has)) return undefined;
  return PodCgroups.at(mountOf(2), (path) => installAt(path, withAnyMknod(onlyNull)));
}

/** A pod whose container has an NSM client and an application in one. */
export interface VfioPod extends SandboxPod {
  readonly container: Container;
  /** Plays the manager too. */
  readonly vfio: Client;
}

export async function vfioPod(
  scene: Scene,
  options: Partial<ClientOptions> & { readonly cgroupDir?: string } = {},
): Promise<VfioPod> {
  const pod = await scene.pod();
  const container = await scene.sandbox.startContainer(pod);
  const { cgroupDir = await container.cgroupDir(), ...rest } = options;
  const parameters = { tokenID: pod.tokenId, cgroupDir };
  return { ...pod, container, vfio: scene.direct(pod, { mechanism: "VFIO", parameters, ...rest }) };
}

/** The group's name, which is its number. */
export function groupOf(client: Client): string {
  const group = client.connection?.mechanism?.parameters["iommuGroup"];
  assert.ok(group, "the answer names no IOMMU group");
  return group;
}

/** What a process of the container can do with the two nodes: "" or the errno's name of each. */
export async function opening(container: Container, group: string): Promise<readonly string[]> {
  return [await container.tries("vfio"), await container.tries(group)];
}

/** No cgroup of the sandbox lets a process open a device that stands in for VFIO's. */
export function nothingGranted(cgroups: PodCgroups): void {
  assert.deepEqual(cgroups.rulesFor([commonStandIns.container, ...commonStandIns.groups]), []);
}
