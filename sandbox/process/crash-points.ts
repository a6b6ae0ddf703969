// Where a forwarder can die: each change that it makes to something that outlives it. All of them pass its host, so that a hook
// around the host's doors sees them all, by name.
import { basename } from "node:path";
import type { DeviceAccess, DeviceGrant } from "../../src/access/index.ts";
import { systemClock } from "../../src/async/index.ts";
import {
  BlockingWrites,
  type Disk,
  type DiskFile,
  type HostFiles,
  type Rtnl,
  type TextWrites,
} from "../../src/kernel/index.ts";
import type { Host } from "../../src/node/index.ts";

/** One change. */
export interface Step {
  /** Of the host. */
  readonly door: "rtnetlink" | "disk" | "devices" | "drivers" | "vf-settings" | "cgroups" | "device-access";
  readonly verb: string;
  /** The same on each node and in each run: a file's name, what is set. May be empty. */
  readonly subject: string;
}

/** Stands around each step: lets it happen, or not, or holds it for ever before or after. */
export type AtStep = <T>(step: Step, act: () => Promise<T>) => Promise<T>;

/** "disk datasync journal" */
export function nameOf({ door, verb, subject }: Step): string {
  return [door, verb, subject].filter((word) => word !== "").join(" ");
}

/** The host with each of its changes announced. */
export function withCrashPoints(host: Host, at: AtStep): Host {
  const filesOf = (door: "devices" | "drivers", files: HostFiles): HostFiles => {
    const writeText: HostFiles["writeText"] = (path, ...rest) =>
      at({ door, verb: "write", subject: basename(path) }, () => files.writeText(path, ...rest));
    return Object.assign(Object.create(files), { writeText });
  };
  return {
    ...host,
    devices: filesOf("devices", host.devices),
    drivers: filesOf("drivers", host.drivers),
    disk: diskWith(host.disk, at),
    openRtnl: (netns) => rtnlWith(host.openRtnl(netns), at),
    pfPort: (pf) => {
      const port = host.pfPort(pf);
      const write: typeof port.write = (vf, change) => {
        const subject = Object.keys(change).join(", ");
        return at({ door: "vf-settings", verb: "set", subject }, () => port.write(vf, change));
      };
      return { pf: port.pf, read: (vf) => port.read(vf), write };
    },
    openAccess: (parts) => {
      const writes = cgroupsWith(parts.writes ?? new BlockingWrites(systemClock), at);
      return accessWith(host.openAccess({ ...parts, writes }), at);
    },
  };
}

/** Whether a method of the socket changes something. A new one does not compile before it is named here. */
const rtnlMethods: Readonly<Record<keyof Rtnl, "changes" | "reads">> = {
  close: "reads",
  links: "reads",
  linksNamedOrAbove: "reads",
  linkByName: "reads",
  linkByIndex: "reads",
  namespaceId: "reads",
  setLink: "changes",
  createLink: "changes",
  deleteLink: "changes",
  vfCount: "reads",
  vfInfos: "reads",
  setVf: "changes",
  addresses: "reads",
  addAddress: "changes",
  deleteAddress: "changes",
  routes: "reads",
  defaultRoutes: "reads",
  addRoute: "changes",
  deleteRoute: "changes",
  rules: "reads",
  addRule: "changes",
  deleteRule: "changes",
  neighbours: "reads",
  addNeighbour: "changes",
  deleteNeighbour: "changes",
  watch: "reads",
};

function rtnlWith(rtnl: Rtnl, at: AtStep): Rtnl {
  for (const [verb, kind] of Object.entries(rtnlMethods)) {
    if (kind === "reads") continue;
    const change = (rtnl as unknown as Record<string, (...args: unknown[]) => Promise<void>>)[verb]?.bind(rtnl);
    if (!change) throw new Error(`rtnetlink has no ${verb}`);
    const subjectOf = (args: readonly unknown[]) => (verb === "setLink" ? Object.keys(args[1] ?? {}).join(", ") : "");
    const announced = (...args: unknown[]) =>
      at({ door: "rtnetlink", verb, subject: subjectOf(args) }, () => change(...args));
    Object.assign(rtnl, { [verb]: announced });
  }
  return rtnl;
}

/** A file that is not in its place yet has a name of its own each time. */
function fileName(path: string): string {
  return basename(path).replace(/[.][0-9a-f-]{36}$/, ".new");
}

function diskWith(disk: Disk, at: AtStep): Disk {
  const step = (verb: string, path: string): Step => ({ door: "disk", verb, subject: fileName(path) });
  const fileWith = (file: DiskFile, path: string): DiskFile => ({
    read: (position, length) => file.read(position, length),
    write: (bytes) => at(step("write", path), () => file.write(bytes)),
    truncate: (size) => at(step("truncate", path), () => file.truncate(size)),
    datasync: () => at(step("datasync", path), () => file.datasync()),
    sync: () => at(step("sync", path), () => file.sync()),
    close: () => file.close(),
  });
  const open: Disk["open"] = async (path, how) => fileWith(await disk.open(path, how), path);
  return {
    open: (path, how) => (how === "create" ? at(step("create", path), () => open(path, how)) : open(path, how)),
    stat: (path) => disk.stat(path),
    rename: (from, to) => at(step("rename", from), () => disk.rename(from, to)),
    unlink: (path) => at(step("unlink", path), () => disk.unlink(path)),
    syncFolder: (path) => at(step("sync folder", path), () => disk.syncFolder(path)),
    makeFolder: (path) => at(step("make folder", path), () => disk.makeFolder(path)),
    restrict: (path) => disk.restrict(path),
  };
}

function cgroupsWith(writes: TextWrites, at: AtStep): TextWrites {
  return {
    write: (path, ...rest) =>
      at({ door: "cgroups", verb: "write", subject: basename(path) }, () => writes.write(path, ...rest)),
  };
}

/** Filters of version 2 change inside one call that nothing comes between: the call is the step. */
function accessWith(access: DeviceAccess, at: AtStep): DeviceAccess {
  const step = (verb: string): Step => ({ door: "device-access", verb, subject: "" });
  const grant = (made: DeviceGrant): DeviceGrant => ({
    get state() {
      return made.state;
    },
    apply: (signal) => at(step("apply"), () => made.apply(signal)),
    isInForce: () => made.isInForce(),
    revoke: () => at(step("revoke"), () => made.revoke()),
    letGo: () => made.letGo(),
  });
  return {
    version: access.version,
    open: (request) => grant(access.open(request)),
    adopt: (...args) => grant(access.adopt(...args)),
    watch: (pod, connectionId) => access.watch(pod, connectionId),
    onPodGone: (listener) => access.onPodGone(listener),
    clearStrays: (...args) => at(step("clear strays"), () => access.clearStrays(...args)),
    rulesOf: (pod, devices) => access.rulesOf(pod, devices),
    hasPod: (pod) => access.hasPod(pod),
    close: () => access.close(),
  };
}
