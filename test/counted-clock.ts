import { type Clock, systemClock } from "../src/async/index.ts";

/** The machine's clock, and how many of its timers are set: what is left of them when everything is closed is a leak. */
export interface CountedClock extends Clock {
  readonly timerCount: number;
}

/** `clock`: where another one is to be counted. */
export function countedClock(clock: Clock = systemClock): CountedClock {
  const set = new Set<object>();
  return {
    ...clock,
    get timerCount() {
      return set.size;
    },
    after(delayMs, callback) {
      const timer = clock.after(delayMs, () => {
        set.delete(timer);
        callback();
      });
      set.add(timer);
      return {
        cancel() {
          set.delete(timer);
          timer.cancel();
        },
      };
    },
    async sleep(delayMs, signal) {
      const sleep = {};
      set.add(sleep);
      try {
        await clock.sleep(delayMs, signal);
      } finally {
        set.delete(sleep);
      }
    },
  };
}
