// A forwarder in a process of its own, on a node that outlives it: killed with SIGKILL at any of its steps.
import { type ChildProcess, spawn } from "node:child_process";
import { closeSync, openSync } from "node:fs";
import { KernelError } from "../src/kernel/index.ts";
import { runtimeFlags } from "../tools/bundle-options.ts";
import type { Ask, Book, Heard, Told } from "./process-messages.ts";
import type { Sandbox } from "./sandbox.ts";

/** What it takes of a sandbox: the node, and how the forwarder is to run on it. */
export type KillableNode = Pick<Sandbox, "machine" | "forwarderSettings"> & {
  readonly pfConfigFile: { readonly text: string };
};

export interface KillableOptions {
  readonly program: string;
  readonly logFile: string;
  /** What starts Node, for example with fewer privileges. */
  readonly starter?: readonly string[];
}

export class KillableForwarder {
  /** The steps since `arm`, in words. */
  readonly steps: string[] = [];
  readonly #child: ChildProcess;
  readonly #sandbox: KillableNode;
  readonly #started = Promise.withResolvers<void>();
  readonly #ended: Promise<void>;
  #at = Number.POSITIVE_INFINITY;
  #isHit = false;
  #killed = Promise.withResolvers<string>();
  #book = Promise.withResolvers<Book>();

  constructor(sandbox: KillableNode, { program, logFile, starter = [] }: KillableOptions) {
    const { machine } = sandbox;
    this.#sandbox = sandbox;
    const log = openSync(logFile, "a");
    const stdio = ["ignore", log, log, "ipc", machine.netns.fd.number] as const;
    const [command, ...words] = [...starter, process.execPath, ...runtimeFlags, program] as const;
    this.#child = spawn(command ?? "", words, { stdio: [...stdio], serialization: "advanced" });
    closeSync(log);
    this.#ended = new Promise((resolve) => this.#child.once("exit", () => resolve()));
    this.#child.on("error", (error) => this.#started.reject(error));
    this.#child.on("message", (told: Told) => this.#heard(told));
    const stop = machine.uevents.subscribe((event) => this.#tell({ kind: "uevent", event }));
    void this.#ended.then(() => {
      stop();
      this.#started.reject(new Error(`the forwarder's process has ended: see ${logFile}`));
    });
    const { forwarderSettings: settings, pfConfigFile } = sandbox;
    this.#tell({ kind: "start", settings, pfConfigText: pfConfigFile.text });
  }

  /** Resolves when it is registered with the manager and kubelet is being told. */
  get started(): Promise<void> {
    return this.#started.promise;
  }

  /** From now on, kills it at the step of this number: each one counts twice, before and after. */
  arm(at: number): void {
    this.steps.length = 0;
    this.#at = at;
    this.#killed = Promise.withResolvers();
  }

  /** It has come to that step, and dies. */
  get isHit(): boolean {
    return this.#isHit;
  }

  /** Resolves with the name of the step when it is dead. */
  get killed(): Promise<string> {
    return this.#killed.promise;
  }

  async book(): Promise<Book> {
    this.#book = Promise.withResolvers();
    this.#tell({ kind: "book" });
    return await this.#book.promise;
  }

  async kill(): Promise<void> {
    this.#child.kill("SIGKILL");
    await this.#ended;
  }

  #tell(heard: Heard): void {
    if (this.#child.connected) this.#child.send(heard, () => {}); // who is dead does not hear
  }

  #heard(told: Told): void {
    if (told.kind === "started") this.#started.resolve();
    else if (told.kind === "book") this.#book.resolve(told.book);
    else if (told.kind === "step" && this.steps.length === this.#at) {
      this.#at = Number.POSITIVE_INFINITY;
      this.#isHit = true;
      void this.kill().then(() => this.#killed.resolve(told.what));
    } else {
      if (told.kind === "step") this.steps.push(told.what);
      void this.#reply(told.id, told);
    }
  }

  async #reply(id: number, ask: Ask): Promise<void> {
    try {
      this.#tell({ kind: "answer", id, value: await this.#answer(ask) });
    } catch (error) {
      if (!(error instanceof KernelError)) throw error;
      const { op, errno, detail } = error;
      this.#tell({ kind: "answer", id, failure: { op, errno, detail } });
    }
  }

  async #answer(ask: Ask): Promise<unknown> {
    const { machine } = this.#sandbox;
    if (ask.kind === "step") return undefined;
    const target = ask.kind === "files" ? machine[ask.tree] : machine.pfPort({ address: ask.pf });
    const call = (target as unknown as Record<string, (...args: unknown[]) => Promise<unknown>>)[ask.method];
    return await call?.apply(target, [...ask.args]);
  }
}
