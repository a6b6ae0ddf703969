import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, writeFileSync } from "node:fs";
import type { Client } from "../../sandbox/nsm/client.ts";
import type { DesiredContext } from "../../sandbox/nsm/endpoint-context.ts";
import type { SandboxPod } from "../../sandbox/sandbox.ts";
import { installAt, onlyNull } from "../../test/scenes/device-filters.ts";
import { type Outcome, runVfioClient } from "./hold-vf.ts";
import type { LabNode, Side } from "./node.ts";

const ROOT = "/sys/fs/cgroup";
const V1 = `${ROOT}/devices`;
/** What it says when its cgroup does not let it at the group: EPERM. */
export const REFUSED = ["group: error 1"];

/** A pod with a container in a device cgroup of its own, as a runtime makes it, and an NSM client that asks for VFIO. */
export class VfioPod {
  readonly sandboxPod: SandboxPod;
  readonly client: Client;
  readonly #cgroup: string;
  readonly #nodes: string;

  private constructor(sandboxPod: SandboxPod, client: Client, cgroup: string) {
    this.sandboxPod = sandboxPod;
    this.client = client;
    this.#cgroup = cgroup;
    this.#nodes = `/tmp/${sandboxPod.name}`;
  }

  static async start(node: LabNode, side: Side, desired: DesiredContext): Promise<VfioPod> {
    const pod = await node.pod(side, desired);
    const path = `kubepods/besteffort/pod${pod.allocation.podUid}`;
    const cgroup = `${existsSync(V1) ? V1 : ROOT}/${path}/app`;
    mkdirSync(cgroup, { recursive: true });
    closeDevices(cgroup);
    // Stock clients name their cgroup where the host has version 1, and cannot on a unified one.
    const cgroupDir = existsSync(V1) ? `${path}/*` : "";
    const parameters = { tokenID: pod.tokenId, cgroupDir };
    return new VfioPod(pod, node.client(pod, { mechanism: "VFIO", parameters }), cgroup);
  }

  /** The program in this pod's cgroup, at the VF of a connection: the pod's own, or another's. */
  async tries({ client }: VfioPod): Promise<Outcome> {
    const { pciAddress = "", iommuGroup = "", ...numbers } = client.connection?.mechanism?.parameters ?? {};
    const container = this.#makeNode("vfio", numbers["vfioMajor"], numbers["vfioMinor"]);
    const group = this.#makeNode(iommuGroup, numbers["deviceMajor"], numbers["deviceMinor"]);
    return this.#run([container, group, pciAddress]);
  }

  /** The same as `tries`, without holding anything. */
  async steps(of: VfioPod): Promise<readonly string[]> {
    const outcome = await this.tries(of);
    await outcome.close();
    return outcome.steps;
  }

  /** The very nodes that it had made for a connection which is closed since. */
  async stepsAt(group: string, pciAddress: string): Promise<readonly string[]> {
    const outcome = await this.#run([`${this.#nodes}/vfio`, `${this.#nodes}/${group}`, pciAddress]);
    await outcome.close();
    return outcome.steps;
  }

  /** As cmd-nsc does in its container; a node that is there already stays. */
  #makeNode(name: string, major = "", minor = ""): string {
    const path = `${this.#nodes}/${name}`;
    mkdirSync(this.#nodes, { recursive: true });
    if (!existsSync(path)) execFileSync("mknod", ["-m", "666", path, "c", major, minor]);
    return path;
  }

  #run(args: readonly string[]): Promise<Outcome> {
    const enter = 'echo $$ > "$0/cgroup.procs" && exec vfio-client "$@"';
    return runVfioClient("sh", ["-c", enter, this.#cgroup, ...args]);
  }
}

/** Nothing may be opened in it but /dev/null, and what a program needs to start. */
function closeDevices(cgroup: string): void {
  if (cgroup.startsWith(V1)) {
    writeFileSync(`${cgroup}/devices.deny`, "a");
    for (const rule of ["c *:* m", "c 1:3 rwm"]) writeFileSync(`${cgroup}/devices.allow`, rule);
    return;
  }
  installAt(cgroup, onlyNull);
}
