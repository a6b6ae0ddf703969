import { type ChildProcess, spawn } from "node:child_process";
import { createWriteStream, type WriteStream } from "node:fs";
import { createInterface } from "node:readline";
import { runtimeFlags } from "../../tools/bundle-options.ts";
import { within } from "./waiting.ts";

/** The program as it is shipped. */
const PROGRAM = "/project/dist/forwarder.mjs";
const LOG = "/out/forwarder.log";
const LIMIT_MS = 90_000;

/** A line of the forwarder's log. */
export interface LogLine {
  readonly level: string;
  readonly event: string;
  /** Milliseconds since 1970. */
  readonly atMs: number;
  readonly [field: string]: unknown;
}

/** The forwarder as a process of its own, seen from outside. */
export class ForwarderProcess {
  readonly lines: LogLine[] = [];
  readonly #child: ChildProcess;
  readonly #log: WriteStream;
  readonly #ended: Promise<string>;
  readonly #listeners = new Set<(line: LogLine) => void>();

  constructor(environment: Readonly<Record<string, string>>) {
    this.#log = createWriteStream(LOG, { flags: "a" });
    const env = { PATH: process.env["PATH"] ?? "", ...environment };
    this.#child = spawn(process.execPath, [...runtimeFlags, PROGRAM], { env, stdio: ["ignore", "inherit", "pipe"] });
    if (!this.#child.stderr) throw new Error("The forwarder's log is not connected");
    createInterface(this.#child.stderr).on("line", (text) => this.#hear(text));
    this.#ended = new Promise((resolve) => {
      this.#child.once("exit", (code, signal) => resolve(signal ?? `exit status ${code}`));
      this.#child.once("error", (error) => resolve(error.message));
    });
  }

  /** Resolves with how it ended: "SIGKILL", "exit status 0". */
  get ended(): Promise<string> {
    return this.#ended;
  }

  get hasEnded(): boolean {
    return this.#child.exitCode !== null || this.#child.signalCode !== null;
  }

  get pid(): number {
    return this.#child.pid ?? 0;
  }

  /** The first line, of those that were reported already or come yet, that is as desired. */
  async line(what: string, isWanted: (line: LogLine) => boolean): Promise<LogLine> {
    return this.lines.find(isWanted) ?? (await this.nextLine(what, isWanted));
  }

  /** The first line, of those that come yet, that is as desired. */
  async nextLine(what: string, isWanted: (line: LogLine) => boolean): Promise<LogLine> {
    const { promise, resolve, reject } = Promise.withResolvers<LogLine>();
    const listener = (line: LogLine) => isWanted(line) && resolve(line);
    this.#listeners.add(listener);
    void this.#ended.then((how) => reject(new Error(`The forwarder ended (${how}) before it reported: ${what}`)));
    try {
      return await within(LIMIT_MS, `the forwarder's line "${what}"`, promise);
    } finally {
      this.#listeners.delete(listener);
    }
  }

  /** Answers with how it ended: "SIGKILL", "exit status 0". */
  async end(signal: "SIGTERM" | "SIGKILL"): Promise<string> {
    this.#child.kill(signal);
    const how = await within(LIMIT_MS, `the forwarder's end after ${signal}`, this.#ended);
    await new Promise((resolve) => this.#log.end(resolve));
    return how;
  }

  #hear(text: string): void {
    this.#log.write(`${text}\n`);
    let line: LogLine;
    try {
      const { time, ...fields } = JSON.parse(text) as { time: string; level: string; event: string };
      line = { ...fields, atMs: Date.parse(time) };
    } catch {
      return; // what Node itself prints when it dies is in the file
    }
    this.lines.push(line);
    for (const listener of this.#listeners) listener(line);
  }
}
