// The forwarder in a process of its own, to be killed: its node is asked of the process that started it, but for cgroups, which
// are the machine's. Each step that it takes for a call with a trace waits there before and after it is done.
import { AsyncLocalStorage } from "node:async_hooks";
import { flushCompileCache } from "node:module";
import { openDeviceAccess } from "../../src/access/index.ts";
import { type Clock, systemClock, type UndoStack } from "../../src/async/index.ts";
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
import { ownBudgets } from "../../src/process/own-budgets.ts";
import { live, type Running } from "../../src/process/process-life.ts";
import { createLog, type Log, type LogFields, type Tracer } from "../../src/telemetry/index.ts";
import { LeapClock } from "../leap-clock.ts";
import { locksIn } from "../nic/pf-locks.ts";
import { startSandboxForwarder } from "../start-forwarder.ts";
import { type AtStep, nameOf, withCrashPoints } from "./crash-points.ts";
import type { Failure, Heard, NodeRequest, PhaseTrial, StartRequest } from "./process-messages.ts";

/** Where the parent has put the host's network namespace. */
const NETNS_FD = 4;

/** As of the shipped program. */
const STOP_LIMIT_MS = 15_000;

const clock = new LeapClock();
const waiting = new Map<number, PromiseWithResolvers<unknown>>();
const listeners = new Set<(event: Uevent) => void>();
let lastId = 0;

/** No answer of the node comes any more. */
let isNodeSilent = false;

function request(what: NodeRequest): Promise<unknown> {
  if (isNodeSilent && what.kind === "files") return new Promise(() => {});
  lastId += 1;
  const answer = Promise.withResolvers<unknown>();
  waiting.set(lastId, answer);
  process.send?.({ id: lastId, ...what });
  return answer.promise;
}

/** A call that carries its trace; what continues behind its answer belongs to it where its flags say so (W3C: "03", random). */
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
      call.isOver = !name.endsWith("-03");
    }
  },
  step: (_name, work) => work(),
  headers: () => ({}),
};

/** Filters of version 2 are steps that mostly change nothing: whether they did, the kernel says. */
const NO_CHANGES = ["disk", "device-access"];

const atStep: AtStep = async (step, act) => {
  const call = calls.getStore();
  if (!NO_CHANGES.includes(step.door)) process.send?.({ kind: "change", what: nameOf(step) });
  const announce = async (when: string) => {
    if (call && !call.isOver) await request({ kind: "step", call: call.name, what: `${when} ${nameOf(step)}` });
  };
  await announce("before");
  const result = await act();
  await announce("after");
  return result;
};

function filesOf(tree: "devices" | "drivers" | "vfio"): HostFiles {
  const call = (method: keyof HostFiles) =>
    ((...args: unknown[]) => request({ kind: "files", tree, method, args })) as never;
  return {
    readText: call("readText"),
    // A function does not go over a channel: a late return is not heard of.
    async writeText(path, text, { limitMs } = {}) {
      const options = limitMs === undefined ? {} : { limitMs };
      await request({ kind: "files", tree, method: "writeText", args: [path, text, options] });
    },
    list: call("list"),
    readLink: call("readLink"),
    exists: call("exists"),
    inode: call("inode"),
    deviceNumber: call("deviceNumber"),
    heldBy: call("heldBy"),
  };
}

const onDisk = (method: keyof Disk) => ((...args: unknown[]) => request({ kind: "disk", method, args })) as never;

const parentDisk: Disk = {
  async open(...args) {
    const file = (await request({ kind: "disk", method: "open", args })) as number;
    const call = (method: keyof DiskFile) =>
      ((...more: unknown[]) => request({ kind: "file", file, method, args: more })) as never;
    return {
      // What comes over a channel is no Buffer any more.
      read: async (position, length) =>
        Buffer.from((await request({ kind: "file", file, method: "read", args: [position, length] })) as Uint8Array),
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
  request({ kind: "owner", netnsFd: netns.fd.number, link }) as ReturnType<LinkOwnerOf>;

const hostWith = ({ cgroupPath, hasLinks, isDiskOfParent, lockFolder }: StartRequest): Host => ({
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
  ...(isDiskOfParent && { disk: parentDisk }),
  openAccess: (parts) => openDeviceAccess({ ...parts, cgroupPath }),
  queryEswitchMode: async () => undefined,
  openRtnl: (netns) => Rtnl.open({ netns }),
  pfPort: ({ address, ifname, driver }) => ({
    pf: `${address} (${ifname}, driver ${driver})`,
    read: (vf) => request({ kind: "port", pf: address, method: "read", args: [vf] }) as ReturnType<PfPort["read"]>,
    write: async (vf, change) =>
      void (await request({ kind: "port", pf: address, method: "write", args: [vf, change] })),
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

const HURRY = 50;
/** So much faster that a phase that lasts is logged soon. */
const hurried: Clock = { ...systemClock, after: (delayMs, callback) => systemClock.after(delayMs / HURRY, callback) };

async function run(started: StartRequest): Promise<void> {
  const { trial } = started;
  const log = createLog({ level: "info" });
  if (trial?.how === "loop-empty") {
    const { setInterval } = globalThis;
    globalThis.setInterval = ((...args: Parameters<typeof setInterval>) => setInterval(...args).unref()) as never;
  }
  const lived = live({
    start: (signal, undo) =>
      start(started, { log: logWith(log, trial), clock: trial ? hurried : clock, signal, started: undo }),
    log,
    configuredLevel: "info",
    clock: trial ? hurried : clock,
    process: { on: process.on.bind(process), exit: exitNow },
    // Of a node that answers no more the stop is awaited in vain; another one takes its time on a busy machine.
    stopLimitMs: trial && trial.how !== "node-silent" ? HURRY * STOP_LIMIT_MS : STOP_LIMIT_MS,
  });
  // As in production, where there is no other end: what is asked of the parent keeps no process alive.
  process.channel?.unref();
  await lived;
}

async function start(
  started: StartRequest,
  parts: { readonly log: Log; readonly clock: Clock; readonly signal: AbortSignal; readonly started: UndoStack },
): Promise<Running> {
  const { settings, pfConfigText } = started;
  const forwarder = await startSandboxForwarder({
    settings,
    pfConfig: parsePfConfig(pfConfigText, "pci.config"),
    host: withCrashPoints(hostWith(started), atStep),
    budgets: await ownBudgets(clock),
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
  flushCompileCache(); // Node itself writes at an exit, to which no killed process comes
  return forwarder;
}

process.on("message", (heard: Heard) => {
  if (heard.kind === "start") void run(heard);
  if (heard.kind === "leap") clock.leap(heard.ms);
  if (heard.kind === "uevent") for (const listener of [...listeners]) listener(heard.event);
  if (heard.kind !== "answer") return;
  const answer = waiting.get(heard.id);
  waiting.delete(heard.id);
  const { failure } = heard;
  if (failure) answer?.reject(errorOf(failure));
  else answer?.resolve(heard.value);
});
process.on("disconnect", () => exitNow(0));
