import assert from "node:assert/strict";
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { closeSync, openSync, readSync } from "node:fs";
import type { SandboxPod } from "../../sandbox/sandbox.ts";
import { addressOf } from "./kernel-stories.ts";
import { eventually } from "./waiting.ts";

/** A pace that an emulated adapter keeps up with while the guest is busy: a packet that is missed was lost. */
const INTERVAL_S = 0.01;
/** So many later answers prove that no earlier one is under way still: they come in order. */
const MORE = 10;

let files = 0;

/**
 * Pings from pod to pod at an even pace, each packet with its number. ping(8) writes down every answer; reading along would
 * cost the guest more than the pings do.
 */
export class PacedPings {
  readonly #child: ChildProcess;
  readonly #ended: Promise<unknown>;
  readonly #file: number;
  readonly #answered = new Set<number>();
  #newest = 0;
  /** Looked through up to this number. */
  #seen = 0;
  #unread = "";

  private constructor(child: ChildProcess, file: number) {
    this.#child = child;
    this.#ended = new Promise((resolve) => child.once("close", resolve));
    this.#file = file;
  }

  /** Resolves when the first answers have come. */
  static async start({ pod }: SandboxPod, to: SandboxPod): Promise<PacedPings> {
    files += 1;
    const path = `/tmp/answers-${files}`;
    const output = openSync(path, "w");
    const netns = `--net=/proc/${process.pid}/fd/${pod.netns.fd.number}`;
    const args = [netns, "--", "ping", "-n", "-i", String(INTERVAL_S), addressOf(to)];
    const child = spawn("nsenter", args, { stdio: ["ignore", output, output] });
    closeSync(output);
    const pings = new PacedPings(child, openSync(path, "r"));
    await pings.#untilAnswered(MORE);
    return pings;
  }

  /** Every packet since the last time has had its answer; says how many that were. */
  async lostNothing(): Promise<number> {
    this.#read();
    const [first, last] = [this.#seen + 1, this.#newest];
    await this.#untilAnswered(last + MORE);
    const lost = [];
    for (let number = first; number <= last; number += 1) if (!this.#answered.has(number)) lost.push(number);
    this.#seen = last;
    const sent = last - first + 1;
    assert.equal(lost.length, 0, `of ${sent} packets these were lost: ${lost.join(" ")}\n${kernelsWords()}`);
    return sent;
  }

  async end(): Promise<void> {
    this.#child.kill("SIGINT");
    await this.#ended;
    closeSync(this.#file);
  }

  async #untilAnswered(number: number): Promise<void> {
    const observe = () => {
      this.#read();
      return this.#newest;
    };
    await eventually(observe, (newest) => newest >= number);
  }

  /** What ping has written since. */
  #read(): void {
    const buffer = Buffer.alloc(64 * 1024);
    for (let length = readSync(this.#file, buffer); length > 0; length = readSync(this.#file, buffer)) {
      const lines = `${this.#unread}${buffer.toString("latin1", 0, length)}`.split("\n");
      this.#unread = lines.pop() ?? "";
      for (const line of lines) {
        const number = Number(/icmp_seq=(\d+) ttl/.exec(line)?.[1] ?? 0);
        if (number === 0) continue;
        this.#answered.add(number);
        this.#newest = Math.max(this.#newest, number);
      }
    }
  }
}

/** What the kernel has said last: of an adapter that was reset, for example. */
function kernelsWords(): string {
  return execFileSync("dmesg", { encoding: "utf8" }).split("\n").slice(-15).join("\n");
}
