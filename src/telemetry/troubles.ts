import type { Clock } from "../async/index.ts";
import type { LogFields, LogLevel } from "./log.ts";
import { fieldsText } from "./pretty.ts";
import { redact } from "./redact.ts";

/** A warning or an error that the log reported. */
interface Trouble {
  /** ms since 1970 */
  readonly atMs: number;
  readonly level: "error" | "warn";
  readonly event: string;
  /** Its fields in one line, without secrets. */
  readonly text: string;
}

const MOST = 20;
/** An error with its stack would fill the page. */
const LONGEST_TEXT = 600;

/** The latest warnings and errors, for an operator who has no log at hand. */
export class Troubles {
  readonly #clock: Clock;
  readonly #kept: Trouble[] = [];

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Keeps it if it is one. */
  hear(level: LogLevel, event: string, fields: LogFields): void {
    if (level !== "error" && level !== "warn") return;
    const text = fieldsText(redact(fields) as Record<string, unknown>);
    const short = text.length > LONGEST_TEXT ? `${text.slice(0, LONGEST_TEXT)}…` : text;
    this.#kept.unshift({ atMs: this.#clock.now(), level, event, text: short });
    this.#kept.splice(MOST);
  }

  /** The latest first. */
  get list(): readonly Trouble[] {
    return [...this.#kept];
  }
}
