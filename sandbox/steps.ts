// The steps of a forwarder that reach the disk or the kernel, taken where they are made: to count them and to end it at one.
import type { DeviceAccess, DeviceGrant } from "../src/access/index.ts";
import { Journal } from "../src/journal/index.ts";
import { CgroupFolder, type HostFiles, Rtnl } from "../src/kernel/index.ts";
import type { Host } from "../src/node/index.ts";

/** Stands around each step. */
export interface StepTaker {
  /** A part of the forwarder that will take steps: a host, a netlink socket. Journals come without a word. */
  opened?(part: object): void;
  /** Does the step, or does not. */
  take<T>(part: object, what: string, act: () => Promise<T>): Promise<T>;
}

/** Calls that change something in a network namespace. */
const NETLINK_WRITES = [
  "setLink",
  "addAddress",
  "deleteAddress",
  "addRoute",
  "deleteRoute",
  "addRule",
  "deleteRule",
  "addNeighbour",
  "deleteNeighbour",
] as const;

/**
 * Takes the steps that no host is asked for: the journal's, those inside namespaces, and each rule of a cgroup. `isForwarders` says of a netlink
 * socket that is being opened whether the forwarder opens it. Returns how to leave them be.
 */
export function interceptSteps(taker: StepTaker, isForwarders: () => boolean): () => void {
  const [openRtnl, { put, drop, check }] = [Rtnl.open, Journal.prototype];
  const { writeText } = CgroupFolder.prototype;
  Rtnl.open = (options) => {
    const rtnl = openRtnl(options);
    if (isForwarders()) watch(taker, rtnl);
    return rtnl;
  };
  Journal.prototype.put = function (...args) {
    return taker.take(this, `journal ${args[0].split(" ")[0]}`, () => put.apply(this, args));
  };
  Journal.prototype.drop = function (...args) {
    return taker.take(this, `unjournal ${args[0].split(" ")[0]}`, () => drop.apply(this, args));
  };
  // A dead forwarder's journal must not put its file in the place of the next one's.
  Journal.prototype.check = function () {
    return taker.take(this, "look for the journal", () => check.call(this)).catch(() => {});
  };
  CgroupFolder.prototype.writeText = function (...args) {
    return taker.take(this, `write ${args[0]}`, () => writeText.apply(this, args));
  };
  return () => {
    Rtnl.open = openRtnl;
    Object.assign(Journal.prototype, { put, drop, check });
    Object.assign(CgroupFolder.prototype, { writeText });
  };
}

function watch(taker: StepTaker, rtnl: Rtnl): void {
  taker.opened?.(rtnl);
  for (const name of NETLINK_WRITES) {
    const write = (rtnl[name] as (...args: unknown[]) => Promise<void>).bind(rtnl);
    const what = (args: unknown[]) => (name === "setLink" ? `set link ${Object.keys(args[1] ?? {}).join(", ")}` : name);
    Object.assign(rtnl, { [name]: (...args: unknown[]) => taker.take(rtnl, what(args), () => write(...args)) });
  }
}

/** The host with its writes taken. */
export function hostWithSteps(taker: StepTaker, host: Host): Host {
  const part = {};
  taker.opened?.(part);
  const filesOf = (name: string, files: HostFiles): HostFiles => {
    const writeText: HostFiles["writeText"] = (path, ...rest) =>
      taker.take(part, `write ${name}/${path.split("/").at(-1)}`, () => files.writeText(path, ...rest));
    return Object.assign(Object.create(files), { writeText });
  };
  return {
    ...host,
    devices: filesOf("devices", host.devices),
    drivers: filesOf("drivers", host.drivers),
    pfPort: (pf) => {
      const port = host.pfPort(pf);
      const write: typeof port.write = (vf, change) =>
        taker.take(part, `set ${Object.keys(change).join(", ")}`, () => port.write(vf, change));
      return { pf: port.pf, read: (vf) => port.read(vf), write };
    },
    openAccess: (parts) => accessWithSteps(taker, part, host.openAccess(parts)),
  };
}

function accessWithSteps(taker: StepTaker, part: object, access: DeviceAccess): DeviceAccess {
  const grant = (made: DeviceGrant): DeviceGrant => ({
    get state() {
      return made.state;
    },
    apply: (signal) => taker.take(part, "let the pod at its devices", () => made.apply(signal)),
    stands: () => made.stands(),
    revoke: () => taker.take(part, "keep the pod from its devices", () => made.revoke()),
    letGo: () => made.letGo(),
  });
  return {
    version: access.version,
    open: (ask) => grant(access.open(ask)),
    adopt: (...args) => grant(access.adopt(...args)),
    watch: (pod, connectionId) => access.watch(pod, connectionId),
    onPodGone: (listener) => access.onPodGone(listener),
    clearStrays: (devices, pods) => taker.take(part, "take strays away", () => access.clearStrays(devices, pods)),
    close: () => access.close(),
  };
}
