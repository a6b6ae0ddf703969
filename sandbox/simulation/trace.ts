import type { Clock } from "../../src/async/index.ts";
import type { Transport } from "../../src/rpc/index.ts";
import type { Log, LogFields, LogLevel } from "../../src/telemetry/index.ts";

/** What is another one in each run, whatever the seed: keys are real, and so are the numbers of descriptors and inodes. */
const UNLIKE: readonly (readonly [RegExp, string])[] = [
  [/inode:\/\/\d+\/\d+/g, "inode://…"],
  [/\/proc\/self\/fd\/\d+/g, "/proc/self/fd/…"],
  [/"(serial|pid|netns)":"?[^",}]*"?/g, '"$1":"…"'],
];

/** All that has happened, in its order, with its time. */
export class Trace {
  readonly lines: string[] = [];
  /** What was logged as a thing for a person to look at. */
  readonly errors: string[] = [];
  readonly #clock: Clock;
  readonly #startMs: number;

  constructor(clock: Clock) {
    this.#clock = clock;
    this.#startMs = clock.monotonicMs();
  }

  say(what: string, text: string): void {
    this.lines.push(`${(this.#clock.monotonicMs() - this.#startMs).toFixed(3)} ${what} ${text}`);
  }

  /** Calls, as they arrive. */
  calls(transport: Transport): Transport {
    return {
      identify: (target) => transport.identify(target),
      dial: (options) => transport.dial(options),
      listen: (options) =>
        transport.listen({
          ...options,
          connected: (connection) => {
            this.say("connected", options.url);
            const taker = options.connected(connection);
            return (
              taker && {
                opened: () => taker.opened(),
                call: (stream) => {
                  this.say("call", `${stream.path} at ${options.url}`);
                  taker.call(stream);
                },
              }
            );
          },
        }),
    };
  }

  /** A log that is kept here, as long as its owner lives. */
  log(lives: () => boolean, bound: LogFields = {}): Log {
    const keep = (level: LogLevel) => (event: string, fields?: LogFields) => {
      if (!lives()) return;
      const content = textOf({ ...bound, ...fields }, event);
      this.say(level, `${event} ${content}`);
      if (level === "error") this.errors.push(`${event} ${content}`);
    };
    return {
      error: keep("error"),
      warn: keep("warn"),
      info: keep("info"),
      debug: keep("debug"),
      trace: () => {},
      with: (fields) => this.log(lives, { ...bound, ...fields }),
    };
  }
}

/** Connections of calls are counted by the process, over all simulations in it. */
function textOf({ connection, ...fields }: LogFields, event: string): string {
  const shown = event.startsWith("rpc-") || connection === undefined ? fields : { connection, ...fields };
  const text = JSON.stringify(shown, (_key, value) => (typeof value === "bigint" ? String(value) : value));
  return UNLIKE.reduce((masked, [what, by]) => masked.replace(what, by), text);
}
