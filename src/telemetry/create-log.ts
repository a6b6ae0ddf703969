import pino, { type DestinationStream, type Logger } from "pino";
import { isLogged, type Log, type LogFields, type LogLevel, type RootLog } from "./log.ts";
import { prettyLine } from "./pretty.ts";
import { redact } from "./redact.ts";

interface LogOptions {
  readonly level: LogLevel;
  /** Fields of every event, for example the version. */
  readonly fields?: LogFields;
  /** One readable line for the operator instead of JSON; by default, when standard error is a terminal. */
  readonly isPretty?: boolean;
  /** Takes each finished line, newline included; standard error by default. */
  readonly write?: (line: string) => void;
}

/**
 * The log of the process: one JSON line per event on standard error, written before the call returns, so that the last words
 * of a dying process are there. Standard output stays free for the answers of commands.
 */
export function createLog(options: LogOptions): RootLog {
  const isPretty = options.isPretty ?? (options.write === undefined && process.stderr.isTTY === true);
  const sink = options.write === undefined ? standardError() : { write: options.write };
  const stream = isPretty ? { write: (line: string) => sink.write(prettyLine(line)) } : sink;
  const writer = pino(
    {
      level: "trace",
      base: null,
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
      serializers: { err: (value: unknown) => value },
      errorKey: "err",
    },
    stream,
  );
  const threshold: Threshold = { level: options.level };
  return new PinoLog(writer, threshold, options.fields ?? {});
}

/** A reader that went away (EPIPE) must not end the forwarder: the lines are lost, the work continues. */
function standardError(): DestinationStream {
  const destination = pino.destination({ fd: 2, sync: true });
  destination.on("error", () => {});
  return destination;
}

/** Shared by a log and its children, so that a change of level reaches all of them. */
interface Threshold {
  level: LogLevel;
}

/** Names that each line has of its own; a field of that name gets an underscore. */
const TAKEN: ReadonlySet<string> = new Set(["level", "time", "event"]);

class PinoLog implements RootLog {
  readonly #writer: Logger;
  readonly #threshold: Threshold;
  readonly #fields: LogFields;

  constructor(writer: Logger, threshold: Threshold, fields: LogFields) {
    this.#writer = writer;
    this.#threshold = threshold;
    this.#fields = fields;
  }

  get level(): LogLevel {
    return this.#threshold.level;
  }

  set level(level: LogLevel) {
    this.#threshold.level = level;
  }

  error(event: string, fields?: LogFields): void {
    this.#write("error", event, fields);
  }

  warn(event: string, fields?: LogFields): void {
    this.#write("warn", event, fields);
  }

  info(event: string, fields?: LogFields): void {
    this.#write("info", event, fields);
  }

  debug(event: string, fields?: LogFields): void {
    this.#write("debug", event, fields);
  }

  trace(event: string, fields?: LogFields): void {
    this.#write("trace", event, fields);
  }

  with(fields: LogFields): Log {
    return new PinoLog(this.#writer, this.#threshold, { ...this.#fields, ...fields });
  }

  #write(level: LogLevel, event: string, fields: LogFields | undefined): void {
    if (!isLogged(level, this.#threshold.level)) return;
    const all = Object.entries({ ...this.#fields, ...fields });
    const plain = redact(Object.fromEntries(all.map(([name, of]) => [TAKEN.has(name) ? `${name}_` : name, of])));
    this.#writer[level]({ event, ...(plain as object) });
  }
}
