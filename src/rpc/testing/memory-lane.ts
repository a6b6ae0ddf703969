import { type Clock, guarded, type Random } from "../../async/index.ts";

/** How long things are under way. */
export interface Delays {
  readonly clock: Clock;
  /** Decides how long each takes, and so which of two connections is faster. */
  readonly random: Pick<Random, "fraction">;
  readonly longestMs: number;
}

/** One direction of a connection: what is sent arrives in its order, each piece a while after the one before. */
export class MemoryLane {
  readonly #delays: Delays;
  readonly #underWay: (() => void)[] = [];

  constructor(delays: Delays) {
    this.#delays = delays;
  }

  send(arrive: () => void): void {
    if (this.#underWay.push(arrive) === 1) this.#carry();
  }

  #carry(): void {
    const { clock, random, longestMs } = this.#delays;
    const arrived = () => {
      this.#underWay[0]?.();
    };
    const next = () => {
      this.#underWay.shift();
      if (this.#underWay.length > 0) this.#carry();
    };
    clock.after(
      random.fraction() * longestMs,
      guarded("timer", () => {
        try {
          arrived();
        } finally {
          next();
        }
      }),
    );
  }
}
