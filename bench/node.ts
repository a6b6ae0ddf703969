import { type ChildProcess, spawn } from "node:child_process";
import { closeSync, openSync, readdirSync, readFileSync, readlinkSync } from "node:fs";
import { POOL_THREADS } from "../src/process/pool-threads.ts";
import { runtimeFlags } from "../tools/bundle-options.ts";
import type { Answers, Question, Reply } from "./node-messages.ts";

/** Longer than a start with hundreds of links takes. */
const ANSWER_LIMIT_MS = 180_000;

export interface NodeProcessOptions {
  /** The program to run. */
  readonly program: string;
  readonly logFile: string | undefined;
  readonly profileFolder: string | undefined;
}

/** The process that runs the forwarder, seen from outside. */
export class NodeProcess {
  readonly #child: ChildProcess;
  readonly #ended: Promise<string>;

  constructor({ program, logFile, profileFolder }: NodeProcessOptions) {
    const profile = profileFolder === undefined ? [] : ["--cpu-prof", `--cpu-prof-dir=${profileFolder}`];
    const log = openSync(logFile ?? "/dev/null", "a");
    this.#child = spawn(process.execPath, [...runtimeFlags, ...profile, program], {
      stdio: ["ignore", "inherit", log, "ipc"],
      env: { UV_THREADPOOL_SIZE: String(POOL_THREADS), ...process.env },
    });
    closeSync(log);
    this.#ended = new Promise((resolve) => {
      this.#child.once("exit", (code, signal) => resolve(signal ?? `exit status ${code}`));
      this.#child.once("error", (error) => resolve(error.message));
    });
  }

  /** Asks one question. Ask the next one when it is answered. @throws when it fails, or when the process has ended. */
  async query<K extends Question["kind"]>(question: Extract<Question, { kind: K }>): Promise<Answers[K]> {
    const { promise, resolve, reject } = Promise.withResolvers<Answers[K]>();
    const hear = (reply: Reply) => {
      if ("failure" in reply) reject(new Error(`The forwarder's process failed at ${question.kind}: ${reply.failure}`));
      else resolve(reply.answer as Answers[K]);
    };
    const limit = setTimeout(() => reject(new Error(`No answer to ${question.kind}`)), ANSWER_LIMIT_MS);
    this.#child.once("message", hear);
    void this.#ended.then((how) => reject(new Error(`The forwarder's process ended: ${how}`)));
    try {
      this.#child.send(question, (error) => error && reject(error));
      return await promise;
    } finally {
      clearTimeout(limit);
      this.#child.off("message", hear);
    }
  }

  get pid(): number | undefined {
    return this.#child.pid;
  }

  /** Resident memory in MiB, the pages of the node binary that all processes share among them. */
  get rssMib(): number {
    const [, kib = "NaN"] = /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${this.#child.pid}/status`, "utf8")) ?? [];
    return Number(kib) / 1024;
  }

  /** CPU time of the process so far, by the kernel's clock of 100 ticks a second. */
  get cpuMs(): number {
    const stat = readFileSync(`/proc/${this.#child.pid}/stat`, "utf8");
    const [user = Number.NaN, system = Number.NaN] = stat
      .slice(stat.lastIndexOf(")") + 2)
      .split(" ")
      .slice(11, 13)
      .map(Number);
    return (user + system) * 10;
  }

  /** Open descriptors, and how many of them hold a network namespace or a BPF program. */
  get descriptors(): { readonly fds: number; readonly netns: number; readonly bpf: number } {
    const folder = `/proc/${this.#child.pid}/fd`;
    const targets = readdirSync(folder).map((fd) => {
      try {
        return readlinkSync(`${folder}/${fd}`);
      } catch {
        return ""; // closed since
      }
    });
    const open = targets.filter((target) => target !== "");
    const holding = (what: string) => open.filter((target) => target.startsWith(what)).length;
    return { fds: open.length, netns: holding("net:"), bpf: holding("anon_inode:bpf-prog") };
  }

  /** Stops the forwarder and the process; whatever it made in the kernel goes with it. */
  async stop(): Promise<void> {
    try {
      if (this.#child.connected) await this.query({ kind: "stop" });
    } finally {
      if (this.#child.connected) this.#child.disconnect();
      const limit = setTimeout(() => this.#child.kill("SIGKILL"), 5_000);
      await this.#ended;
      clearTimeout(limit);
    }
  }
}
