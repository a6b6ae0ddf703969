// The forwarder in a process of its own, to be killed: its node is asked of the process that started it, but for cgroups, which
// are the machine's. Each step that it takes for a call with a trace waits there before and after it is done.
import { AsyncLocalStorage } from "node:async_hooks";
import { openDeviceAccess } from "../../src/access/index.ts";
import { type Clock, systemClock as clock } from "../../src/async/index.ts";
import {
  type Disk,
  type DiskFile,
  exitNow,
  type HostFiles,
  KernelError,
  type LinkOwnerOf,
  Netns,
  Rtnl,
  type Uevent,
} from "../../src/kernel/index.ts";
import type { PfPort } from "../../src/netdev/index.ts";
import { type Host, machineDoors } from "../../src/node/index.ts";
import { parsePfConfig, pfLinks } from "../../src/pci/index.ts";
import { live, type Running } from "../../src/process/process-life.ts";
import { createLog, type Log, type LogFields, type Tracer } from "../../src/telemetry/index.ts";
import { locksIn } from "../nic/pf-locks.ts";
import { startSandboxForwarder } from "../start-forwarder.ts";
import { type AtStep, nameOf, withCrashPoints } from "./crash-points.ts";
import type { Ask, Failure, Heard, PhaseTrial, StartAsk } from "./process-messages.ts";

/** Where the parent has put the host's network namespace. */
const NETNS_FD = 4;

const waiting = new Map<number, PromiseWithResolvers<unknown>>();
const listeners = new Set<(event: Uevent) => void>();
let asked = 0;

/** No answer of the node comes any more. */
let isNodeSilent = false;

function ask(what: Ask): Promise<unknown> {
  if (isNodeSilent && what.kind === "files") return new Promise(() => {});
  asked += 1;
  const answer = Promise.withResolvers<unknown>();
  waiting.set(asked, answer);
  process.send?.({ id: asked, ...what });
  return answer.promise;
}

/** A call that carries its trace; what continues behind its answer belongs to no call. */
interface TracedCall {
  readonly name: string;
  isOver: boolean;
}

const calls = new AsyncLocalStorage<TracedCall>();

const tracer: Tracer = {
  async serve(_name, headers, _facts, work) {
    const [name] = headers.get("traceparent") ?? [];
    if (name === undefined) return await work();
    const call: TracedCall = { name, isOver: false };
    try {
      return await calls.run(call, work);
    } finally {
      call.isOver = true;
    }
  },
  step: (_name, work) => work(),
  headers: () => ({}),
};

const atStep: AtStep = async (step, act) => {
  const call = calls.getStore();
  const announce = async (when: string) => {
    if (call && !call.isOver) await ask({ kind: "step", call: call.name, what: `${when} ${nameOf(step)}` });
  };
  await announce("before");
  const result = await act();
  await announce("after");
  return result;
};

function filesOf(tree: "devices" | "drivers" | "vfio"): HostFiles {
  const call = (method: keyof HostFiles) =>
    ((...args: unknown[]) => ask({ kind: "files", tree, method, args })) as never;
  return {
    readText: call("readText"),
    writeText: call("writeText"),
    list: call("list"),
    readLink: call("readLink"),
    exists: call("exists"),
    deviceNumber: call("deviceNumber"),
    heldBy: call("heldBy"),
  };
}

const onDisk = (method: keyof Disk) => ((...args: unknown[]) => ask({ kind: "disk", method, args })) as never;

const askedDisk: Disk = {
  async open(...args) {
    const file = (await ask({ kind: "disk", method: "open", args })) as number;
    const call = (method: keyof DiskFile) =>
      ((...more: unknown[]) => ask({ kind: "file", file, method, args: more })) as never;
    return {
      // What comes over a channel is no Buffer any more.
      read: async (position, length) =>
        Buffer.from((await ask({ kind: "file", file, method: "read", args: [position, length] })) as Uint8Array),
      write: call("write"),
      truncate: call("truncate"),
      datasync: call("datasync"),
      sync: call("sync"),
      close: call("close"),
    };
  },
  stat: onDisk("stat"),
  rename: onDisk("rename"),
  unlink: onDisk("unlink"),
  syncFolder: onDisk("syncFolder"),
  makeFolder: onDisk("makeFolder"),
  restrict: onDisk("restrict"),
};

const netns = Netns.fromFd({ number: NETNS_FD });
const devices = filesOf("devices");
const linkOwnerOf: LinkOwnerOf = ({ netns }, link) =>
  ask({ kind: "owner", netnsFd: netns.fd.number, link }) as ReturnType<LinkOwnerOf>;

const hostWith = ({ cgroupPath, hasLinks, isDiskAsked, lockFolder }: StartAsk): Host => ({
  devices,
  linkOwnerOf,
  pfLink: hasLinks ? pfLinks({ devices, linkOwnerOf }) : async () => undefined,
  drivers: filesOf("drivers"),
  vfio: filesOf("vfio"),
  uevents: {
    subscribe(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    close: () => listeners.clear(),
  },
  netns,
  locks: locksIn(lockFolder),
  ...machineDoors(netns),
  ...(isDiskAsked && { disk: askedDisk }),
  openAccess: (parts) => openDeviceAccess({ ...parts, cgroupPath }),
  askEswitchMode: async () => undefined,
  openRtnl: (netns) => Rtnl.open({ netns }),
  pfPort: ({ address, ifname, driver }) => ({
    pf: `${address} (${ifname}, driver ${driver})`,
    read: (vf) => ask({ kind: "port", pf: address, method: "read", args: [vf] }) as ReturnType<PfPort["read"]>,
    write: async (vf, change) => void (await ask({ kind: "port", pf: address, method: "write", args: [vf, change] })),
  }),
});

function errorOf(failure: Failure): Error {
  if ("errno" in failure) return new KernelError(failure.op, failure.errno, failure.detail);
  return Object.assign(new Error(failure.message), { code: failure.code });
}

/** What is to go wrong goes wrong in the line that names its phase. */
function logWith(log: Log, trial: PhaseTrial | undefined): Log {
  let phase = 0;
  const info = (event: string, fields?: LogFields) => {
    log.info(event, fields);
    if (event === "phase") phase += 1;
    if (event !== "phase" || phase !== trial?.phase) return;
    if (trial.how === "exit") process.exit(3);
    isNodeSilent = true;
  };
  return {
    error: (event, fields) => log.error(event, fields),
    warn: (event, fields) => log.warn(event, fields),
    info,
    debug: (event, fields) => log.debug(event, fields),
    trace: (event, fields) => log.trace(event, fields),
    with: (fields) => log.with(fields),
  };
}

/** So much faster that a phase that lasts is logged soon. */
const hurried: Clock = { ...clock, after: (delayMs, callback) => clock.after(delayMs / 50, callback) };

async function run(asked: StartAsk): Promise<void> {
  const { trial } = asked;
  const log = createLog({ level: "info" });
  if (trial?.how === "loop-empty") {
    const { setInterval } = globalThis;
    globalThis.setInterval = ((...args: Parameters<typeof setInterval>) => setInterval(...args).unref()) as never;
  }
  const lived = live({
    start: (signal) => start(asked, { log: logWith(log, trial), clock: trial ? hurried : clock, signal }),
    log,
    configuredLevel: "info",
    clock: trial ? hurried : clock,
    process: { on: process.on.bind(process), exit: exitNow },
    stopLimitMs: 15_000,
  });
  // As in production, where there is no other end: what is asked of the parent keeps no process alive.
  process.channel?.unref();
  await lived;
}

async function start(
  asked: StartAsk,
  parts: { readonly log: Log; readonly clock: Clock; readonly signal: AbortSignal },
): Promise<Running> {
  const { settings, pfConfigText } = asked;
  const forwarder = await startSandboxForwarder({
    settings,
    pfConfig: parsePfConfig(pfConfigText, "pci.config"),
    host: withCrashPoints(hostWith(asked), atStep),
    tracer,
    ...parts,
  });
  const { node, nsm } = forwarder;
  process.on("message", ({ kind }: Heard) => {
    if (kind !== "inventory") return;
    const vfs = node.inventory.snapshot().map(({ address, state, connectionId, problem, tokenId }) => {
      const isHeld = connectionId !== undefined;
      return { address, isHeld, state: state === "reserved" ? "idle" : state, problem, tokenId };
    });
    process.send?.({ kind: "inventory", inventory: { vfs, connections: nsm.connectionCount } });
  });
  process.send?.({ kind: "started" });
  return forwarder;
}

process.on("message", (heard: Heard) => {
  if (heard.kind === "start") void run(heard);
  if (heard.kind === "uevent") for (const listener of [...listeners]) listener(heard.event);
  if (heard.kind !== "answer") return;
  const answer = waiting.get(heard.id);
  waiting.delete(heard.id);
  const { failure } = heard;
  if (failure) answer?.reject(errorOf(failure));
  else answer?.resolve(heard.value);
});
process.on("disconnect", () => exitNow(0));
