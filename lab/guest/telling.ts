import { appendFileSync } from "node:fs";
import type { Figures, GuestLine } from "../report.ts";

/** The guest's second serial port: the host reads it while we run. */
const PORT = "/dev/ttyS1";

/** Reports to the host. */
export function report(line: GuestLine): void {
  appendFileSync(PORT, `${JSON.stringify(line)}\n`);
}

/** Times of steps, gathered while scenarios run. */
export class Stopwatch {
  readonly #times = new Map<string, number[]>();

  add(step: string, ms: number): void {
    this.#times.set(step, [...(this.#times.get(step) ?? []), Math.round(ms * 100) / 100]);
  }

  async time<T>(step: string, work: () => Promise<T>): Promise<T> {
    const startedAt = performance.now();
    const result = await work();
    this.add(step, performance.now() - startedAt);
    return result;
  }

  get figures(): Figures {
    return Object.fromEntries(this.#times);
  }
}
