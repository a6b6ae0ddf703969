import { existsSync, mkdirSync, readdirSync, readFileSync, rmdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { DeviceNumber } from "../../src/kernel/index.ts";

/** Where Linux mounts its version 1 hierarchy of devices. */
const DEVICES = "/sys/fs/cgroup/devices";

/** What keeps the processes of a new container's cgroup from devices; the cgroup's path on this machine. */
export type Restrict = (path: string) => void;
/** What the containers of the sandbox may open by themselves: /dev/null. They may make any node, as a runtime's default lets them. */
const DEFAULT_RULES = ["c *:* m", "b *:* m", "c 1:3 rwm"];

/**
 * Real device cgroups of pretend pods, named as kubelet's cgroupfs driver names them, in a tree of their own: what a pod may
 * open is for the kernel to say. Needs root.
 */
export class PodCgroups {
  /** For NSM_CGROUP_PATH. */
  readonly path: string;
  readonly #restrict: Restrict;

  private constructor(path: string, restrict: Restrict) {
    this.path = path;
    this.#restrict = restrict;
  }

  /** Beneath any mounted hierarchy, with other means to restrict containers; what the rules are for is of version 1 only. */
  static at(mount: string, restrict: Restrict): PodCgroups {
    const path = join(mount, `nsm-sandbox-${process.pid}-${Date.now()}`);
    mkdirSync(join(path, "kubepods/besteffort"), { recursive: true });
    return new PodCgroups(path, restrict);
  }

  /** Undefined where the machine has no such hierarchy, or does not let this process at it. */
  static make(): PodCgroups | undefined {
    try {
      return existsSync(join(DEVICES, "devices.allow")) ? PodCgroups.at(DEVICES, allowDefaults) : undefined;
    } catch {
      return undefined;
    }
  }

  /** Makes the cgroup of a pod. What is beneath follows with its containers. */
  addPod(uid: string): void {
    mkdirSync(this.#pod(uid), { recursive: true });
  }

  /** Makes the cgroup of a container, and lets nothing be opened in it but what every container may. */
  addContainer(uid: string, container: string): string {
    const path = join(this.#pod(uid), container);
    mkdirSync(path);
    this.#restrict(path);
    return path;
  }

  /** Lets the container open a device, as an unknown process would. */
  allow(uid: string, container: string, { major, minor }: DeviceNumber, access = "rw"): void {
    writeFileSync(join(this.#pod(uid), container, "devices.allow"), `c ${major}:${minor} ${access}`);
  }

  /** Of all pods and their containers, as they are now. */
  folders(): readonly string[] {
    return foldersBelow(this.path);
  }

  /** Each rule beneath for one of the devices, with its cgroup. */
  rulesFor(devices: readonly DeviceNumber[]): readonly string[] {
    const desired = devices.map(({ major, minor }) => `${major}:${minor}`);
    return this.folders().flatMap((path) => {
      const rules = readFileSync(join(path, "devices.list"), "utf8").trim().split("\n");
      return rules.filter((rule) => desired.includes(rule.split(" ")[1] ?? "")).map((rule) => `${path}: ${rule}`);
    });
  }

  /** The pod has ended, and its processes have. */
  removePod(uid: string): Promise<void> {
    return removeTree(this.#pod(uid));
  }

  /** Removes the tree; the processes in it must have ended. */
  close(): Promise<void> {
    return removeTree(this.path);
  }

  #pod(uid: string): string {
    return join(this.path, "kubepods/besteffort", `pod${uid}`);
  }
}

function allowDefaults(path: string): void {
  writeFileSync(join(path, "devices.deny"), "a");
  for (const rule of DEFAULT_RULES) writeFileSync(join(path, "devices.allow"), rule);
}

/** A process leaves its cgroup a moment after its end was reported. */
async function removeTree(root: string): Promise<void> {
  for (const path of foldersBelow(root).toReversed()) {
    for (let tries = 0; ; tries++) {
      try {
        rmdirSync(path);
        break;
      } catch (error) {
        if (tries === 200) throw error;
        await sleep(10);
      }
    }
  }
}

/** The folder and all beneath it, each before what is in it. */
function foldersBelow(path: string): readonly string[] {
  if (!existsSync(path)) return [];
  const children = readdirSync(path, { withFileTypes: true }).filter((entry) => entry.isDirectory());
  return [path, ...children.flatMap(({ name }) => foldersBelow(join(path, name)))];
}
