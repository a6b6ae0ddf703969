// The start in named phases: each is reported as it begins, so that a start that hangs says where.
import type { Clock, Timer } from "../async/index.ts";
import type { Condition, Health, Log } from "../telemetry/index.ts";

/** In their order; the words are the operator's way to the cause. */
export const phaseTitles = [
  "take the state folder",
  "look at the node",
  "read the journal",
  "offer the virtual functions to kubelet",
  "retrieve the SVID (if nothing follows: look at the SPIRE agent)",
  "serve NSM",
  "register with the manager",
] as const;

/** The start as it proceeds. */
interface StartPhases {
  /** The next phase begins. */
  begin(title: (typeof phaseTitles)[number]): void;
  /** All is done. */
  completed(): void;
  /** It will not be: a stop has been requested, or a phase has failed. */
  end(): void;
}

interface StartPhasesOptions {
  readonly health: Health;
  /** Raised as long as the start lasts. */
  readonly notServing: Condition;
  readonly clock: Clock;
  readonly log: Log;
}

/** After so long in one phase a line says what it waits for; the next one comes after twice as long. */
const PATIENCE_MS = 10_000;

/**
 * Reports what is going to be done, then each phase with the time since the start, then the success line, in the words that
 * operators of the original search for. Not ready as long as it lasts; a phase that lasts is reported again, with the conditions
 * that it may wait for.
 */
export function startPhases({ health, notServing, clock, log }: StartPhasesOptions): StartPhases {
  let reminder: Timer | undefined;
  const remind = (title: string, afterMs: number) => {
    reminder?.cancel();
    reminder = clock.after(afterMs, () => {
      const conditions = health.conditions().map(({ code, subject, sentence }) => {
        return `${code}${subject === undefined ? "" : ` ${subject}`}: ${sentence}`;
      });
      log.warn("phase-slow", { phase: title, sinceStart: sinceStart(), conditions });
      remind(title, 2 * afterMs);
    });
  };
  const startedMs = clock.monotonicMs();
  const sinceStart = () => goDuration(clock.monotonicMs() - startedMs);
  const begunMs = new Map<string, number>();
  log.info("phases", {
    message: `there are ${phaseTitles.length} phases, then a success message`,
    titles: phaseTitles,
  });
  return {
    begin(title) {
      notServing.raise(`Starting: ${title}`);
      begunMs.set(title, clock.monotonicMs());
      const message = `executing phase ${begunMs.size}: ${title} (time since start: ${sinceStart()})`;
      log.info("phase", { message });
      remind(title, PATIENCE_MS);
    },
    end: () => reminder?.cancel(),
    completed() {
      reminder?.cancel();
      const ends = [...begunMs.values()].slice(1);
      const took = [...begunMs].map(([title, beganMs], at) => [
        title.replace(/ \(.*/, ""),
        Math.round((ends[at] ?? clock.monotonicMs()) - beganMs),
      ]);
      notServing.clear();
      log.info("started", { message: `Startup completed in ${sinceStart()}`, phasesMs: Object.fromEntries(took) });
    },
  };
}

/** A duration as Go prints it, to a microsecond: `850µs`, `12.5ms`, `1.25s`, `2m3s`. */
export function goDuration(ms: number): string {
  const round = (value: number) => String(Number(value.toFixed(3)));
  if (ms < 1) return `${Math.round(ms * 1000)}µs`;
  if (ms < 1000) return `${round(ms)}ms`;
  const minutes = Math.floor(ms / 60_000);
  const seconds = `${round((ms % 60_000) / 1000)}s`;
  if (minutes < 60) return minutes > 0 ? `${minutes}m${seconds}` : seconds;
  return `${Math.floor(minutes / 60)}h${minutes % 60}m${seconds}`;
}
