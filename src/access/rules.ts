import { type CgroupFolder, type DeviceNumber, KernelError } from "../kernel/index.ts";
import type { WrittenRule } from "./grant.ts";

/** A cgroup that is held open. */
export interface Cgroup {
  /** Beneath the hierarchy's root. */
  readonly path: string;
  readonly folder: CgroupFolder;
}

/** How a hierarchy of one version lets a cgroup's processes at devices. A cgroup that has gone meanwhile is no error. */
export interface Rules {
  /**
   * Lets them open the devices, all or none. Answers what `withdraw` would have to revoke; undefined when they could
   * open them before. Waits for `intend` before it writes, with the rules that carry no mark of ours.
   * @throws {AccessError}
   */
  allow(
    cgroup: Cgroup,
    devices: readonly DeviceNumber[],
    intend: (rules: readonly WrittenRule[]) => Promise<void>,
  ): Promise<Ours | undefined>;
  /** Whether they can open all of the devices. */
  isInForce(cgroup: Cgroup, devices: readonly DeviceNumber[]): Promise<boolean>;
  /** Takes away what we gave, and reads back: what of it is there still, in words. */
  withdraw(cgroup: Cgroup, ours: Ours): Promise<readonly string[]>;
  /** The devices that we let at and that are not among the explained ones. */
  strays(cgroup: Cgroup, known: Known): Promise<readonly DeviceNumber[]>;
  /** Rules for exactly these devices, that carry no mark of who wrote them; none where each does. */
  rulesFor(cgroup: Cgroup, devices: readonly DeviceNumber[]): readonly WrittenRule[];
  /** Changes when the rules may have changed. Cheap: it is read for all cgroups all the time. */
  fingerprint(cgroup: Cgroup): Promise<string>;
}

/** What is to be taken away. */
export interface Ours {
  readonly devices: readonly DeviceNumber[];
  /** Of this cgroup and those above it. */
  readonly wrote: readonly WrittenRule[];
}

/** What strays are logged with. */
export interface Known {
  readonly explained: readonly DeviceNumber[];
  readonly managed: readonly DeviceNumber[];
}

/** The form of devices.list: `10:196`. */
export function deviceText({ major, minor }: DeviceNumber): string {
  return `${major}:${minor}`;
}

export function isSameDevice(one: DeviceNumber, other: DeviceNumber): boolean {
  return one.major === other.major && one.minor === other.minor;
}

/** The devices that are not among the others. */
export function withoutDevices(
  devices: readonly DeviceNumber[],
  others: readonly DeviceNumber[],
): readonly DeviceNumber[] {
  return devices.filter((device) => !others.some((other) => isSameDevice(device, other)));
}

/** What was read, or the other value where the cgroup has gone. */
export function unlessGone<T>(gone: T, read: () => T): T {
  try {
    return read();
  } catch (error) {
    if (isGone(error)) return gone;
    throw error;
  }
}

/** The paths above it, the highest first. */
export function pathsAbove(path: string): readonly string[] {
  const names = path.split("/");
  return names.slice(1).map((_, length) => names.slice(0, length + 1).join("/"));
}

/** Whether the error says that the cgroup has gone. */
export function isGone(error: unknown): boolean {
  return error instanceof KernelError && (error.code === "ENOENT" || error.code === "ENODEV");
}
