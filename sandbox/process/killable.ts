// A forwarder in a process of its own, on a node that outlives it: killed with SIGKILL while its calls stand at any of their steps.
import { type ChildProcess, spawn } from "node:child_process";
import { closeSync, openSync, readFileSync } from "node:fs";
import { type Disk, type DiskFile, KernelError, type LinkOwner, Netns } from "../../src/kernel/index.ts";
import { runtimeFlags } from "../../tools/bundle-options.ts";
import type { Sandbox } from "../sandbox.ts";
import type { Failure, FromForwarder, Heard, InventoryView, NodeRequest, PhaseTrial } from "./process-messages.ts";

/** What it takes of a sandbox: the node, and how the forwarder is to run on it. */
export type KillableNode = Pick<Sandbox, "machine" | "forwarderSettings"> & {
  readonly pfConfigFile: { readonly text: string };
  /** In place of files: asked from the process, so that it outlives it. */
  readonly disk?: Disk | undefined;
  /** For NSM_CGROUP_PATH; it can give no VFIO without. */
  readonly cgroupPath?: string;
};

const NO_CGROUPS = "/nonexistent";

export interface KillableOptions {
  readonly program: string;
  readonly logFile: string;
  /** What starts Node, for example with fewer privileges. */
  readonly starter?: readonly string[];
  /** Flags of Node after the shipped ones. */
  readonly flags?: readonly string[];
  readonly trial?: PhaseTrial;
}

/** A place in a call to die at: before or after a step of this name, the first of them or a later one. */
export interface CrashPoint {
  /** "before rtnetlink setLink up" */
  readonly name: string;
  /** From 1. */
  readonly nth: number;
}

/** A call that is to wait at one of its steps; undefined for none. */
interface Halt {
  readonly at: CrashPoint | undefined;
  readonly halted: PromiseWithResolvers<string>;
  readonly passed: CrashPoint[];
  isHalted: boolean;
}

export class KillableForwarder {
  readonly #child: ChildProcess;
  readonly #sandbox: KillableNode;
  readonly #started = Promise.withResolvers<void>();
  readonly #ended: Promise<number | null>;
  readonly #halts = new Map<string, Halt>();
  /** That it has opened on the disk that is asked, by their order. */
  readonly #files = new Map<number, DiskFile>();
  /** Readers of the inventory, in their order. */
  readonly #readers: PromiseWithResolvers<InventoryView>[] = [];
  /** How often it has read or written something of the node. */
  touches = 0;
  /** What it has changed of the node, by files, settings of VFs, rtnetlink and rules of version 1 cgroups. */
  readonly writes: string[] = [];

  constructor(sandbox: KillableNode, { program, logFile, starter = [], flags = [], trial }: KillableOptions) {
    const { machine } = sandbox;
    this.#sandbox = sandbox;
    const log = openSync(logFile, "a");
    const stdio = ["ignore", log, log, "ipc", machine.netns.fd.number] as const;
    const [command, ...words] = [...starter, process.execPath, ...runtimeFlags, ...flags, program] as const;
    this.#child = spawn(command ?? "", words, { stdio: [...stdio], serialization: "advanced" });
    closeSync(log);
    this.#ended = new Promise((resolve) => this.#child.once("exit", (code) => resolve(code)));
    this.#child.on("error", (error) => this.#started.reject(error));
    this.#child.on("message", (message: FromForwarder) => this.#heard(message));
    const stop = machine.uevents.subscribe((event) => this.#send({ kind: "uevent", event }));
    void this.#ended.then(() => {
      stop();
      this.#started.reject(new Error(`the forwarder's process has ended: see ${logFile}`));
    });
    const { forwarderSettings: settings, pfConfigFile, cgroupPath = NO_CGROUPS, disk } = sandbox;
    const { hasLinks, lockFolder } = machine;
    this.#send({
      kind: "start",
      settings,
      pfConfigText: pfConfigFile.text,
      cgroupPath,
      hasLinks,
      isDiskOfParent: disk !== undefined,
      lockFolder,
      ...(trial && { trial }),
    });
  }

  /** Of its process; undefined when that could not be started. */
  get pid(): number | undefined {
    return this.#child.pid;
  }

  /** Why its process has ended; undefined while it runs. */
  get end(): string | undefined {
    const { exitCode, signalCode } = this.#child;
    return signalCode ?? (exitCode === null ? undefined : `exit code ${exitCode}`);
  }

  /** Resolves when it is registered with the manager and kubelet follows our lists. */
  get started(): Promise<void> {
    return this.#started.promise;
  }

  /**
   * Lets the call with that trace come to that point, and no further; without a point as far as it comes. Resolves with the name
   * when it is there.
   */
  halt(call: string, at: CrashPoint | undefined): Promise<string> {
    const halted = Promise.withResolvers<string>();
    this.#halts.set(call, { at, halted, passed: [], isHalted: false });
    return halted.promise;
  }

  /** The points that the call has come to, in order. */
  pointsOf(call: string): readonly CrashPoint[] {
    return this.#halts.get(call)?.passed ?? [];
  }

  async inventory(): Promise<InventoryView> {
    const reader = Promise.withResolvers<InventoryView>();
    this.#readers.push(reader);
    this.#send({ kind: "inventory" });
    return await reader.promise;
  }

  /** For the forwarder, and for no one else, so much time passes at once. Of one without a trial, whose time is hurried. */
  leap(ms: number): void {
    this.#send({ kind: "leap", ms });
  }

  /** What it takes of the machine's memory, at most so far, in bytes. */
  get peakMemoryBytes(): number {
    const [, kiB] = /^VmHWM:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${this.#child.pid}/status`, "utf8")) ?? [];
    return Number(kiB) * 1024;
  }

  /** With its exit code; null when a signal ended it. */
  get ended(): Promise<number | null> {
    return this.#ended;
  }

  signal(name: NodeJS.Signals): void {
    this.#child.kill(name);
  }

  async kill(): Promise<void> {
    this.#child.kill("SIGKILL");
    await this.#ended;
  }

  #send(heard: Heard): void {
    if (this.#child.connected) this.#child.send(heard, () => {}); // who is dead does not hear
  }

  #heard(message: FromForwarder): void {
    if (message.kind === "started") this.#started.resolve();
    else if (message.kind === "change") this.writes.push(message.what);
    else if (message.kind === "inventory") this.#readers.shift()?.resolve(message.inventory);
    else if (message.kind !== "step" || this.#goesOn(message)) void this.#reply(message.id, message);
  }

  #goesOn({ call, what }: NodeRequest & { readonly kind: "step" }): boolean {
    const halt = this.#halts.get(call);
    if (!halt) return true;
    if (halt.isHalted) return false; // What it does beside that step it has not done either.
    const nth = halt.passed.filter(({ name }) => name === what).length + 1;
    halt.passed.push({ name: what, nth });
    halt.isHalted = what === halt.at?.name && nth === halt.at.nth;
    if (halt.isHalted) halt.halted.resolve(what);
    return !halt.isHalted;
  }

  async #reply(id: number, request: NodeRequest): Promise<void> {
    try {
      this.#send({ kind: "answer", id, value: await this.#answer(request) });
    } catch (error) {
      this.#send({ kind: "answer", id, failure: failureOf(error) });
    }
  }

  async #ownerOf({ netnsFd, link }: NodeRequest & { readonly kind: "owner" }): Promise<LinkOwner> {
    const netns = Netns.openPath(`/proc/${this.#child.pid}/fd/${netnsFd}`);
    try {
      return await this.#sandbox.machine.linkOwnerOf({ netns }, link);
    } finally {
      netns.close();
    }
  }

  async #onDisk(request: NodeRequest & { readonly kind: "disk" | "file" }): Promise<unknown> {
    const target = request.kind === "file" ? this.#files.get(request.file) : this.#sandbox.disk;
    const call = (target as unknown as Record<string, (...args: unknown[]) => Promise<unknown>>)[request.method];
    const answer = await call?.apply(target, [...request.args]);
    if (request.method !== "open") return answer;
    this.#files.set(this.#files.size, answer as DiskFile);
    return this.#files.size - 1;
  }

  async #answer(request: NodeRequest): Promise<unknown> {
    const { machine } = this.#sandbox;
    if (request.kind === "step") return undefined;
    if (request.kind === "disk" || request.kind === "file") return await this.#onDisk(request);
    this.touches += 1;
    if (request.kind === "owner") return await this.#ownerOf(request);
    const target = request.kind === "files" ? machine[request.tree] : machine.pfPort({ address: request.pf });
    const call = (target as unknown as Record<string, (...args: unknown[]) => Promise<unknown>>)[request.method];
    return await call?.apply(target, [...request.args]);
  }
}

function failureOf(error: unknown): Failure {
  if (error instanceof KernelError) return { op: error.op, errno: error.errno, detail: error.detail };
  if (error instanceof Error && "code" in error) return { code: String(error.code), message: error.message };
  throw error;
}
