import type { Kernel } from "./topologies.ts";

/** Tests of the real tier that run in the guest too, on its kernel: netlink, and the two versions of device cgroups. */
export const realTests = ["netlink-contract", "access-grant"] as const;

/** What a guest has for them; what is promised and skipped all the same fails (test/needs.ts). */
export function promisesOf(kernel: Kernel): string {
  const cgroups = kernel === "6.1" ? "cgroup1-devices" : "cgroup2,bpf";
  return `root,netns,veth,bridge,mknod,${cgroups}`;
}
