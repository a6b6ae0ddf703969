// Memory that was freed goes back to the kernel: docs/decisions/005.
import { type Clock, guarded } from "../async/index.ts";
import { trimMemory } from "../kernel/index.ts";

/** An attack frees some ten MiB in it. */
const PAUSE_MS = 200;
/** Processor time in which something worth a trim may have been freed. An idle process does not use it up in a minute. */
const WORK_MS = 20;

interface GivingBack {
  readonly clock: Pick<Clock, "after">;
  /** Processor time of the process so far. */
  readonly cpuMs?: () => number;
  readonly trim?: () => void;
}

/**
 * Trims the memory of the process for as long as it lives, as often as it has worked. For a process whose memory is limited: what
 * sessions, buffers and TLS had stays in malloc's free lists, in pieces, and one wave of them after another takes more.
 */
export function giveBackMemory({ clock, cpuMs = ownCpuMs, trim = trimMemory }: GivingBack): void {
  let trimmedAtMs = cpuMs();
  const check = () => {
    if (cpuMs() - trimmedAtMs >= WORK_MS) {
      trim();
      trimmedAtMs = cpuMs();
    }
    again();
  };
  const again = () => void clock.after(PAUSE_MS, guarded("timer", check));
  again();
}

function ownCpuMs(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
}
