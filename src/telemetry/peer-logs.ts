import { type Clock, guarded, type Timer } from "../async/index.ts";
import type { Log, LogFields } from "./log.ts";

/** What peers may bring into the log in a minute, in bytes. */
export interface PeerLogLimits {
  /** Under one name. */
  readonly each: number;
  /** In what names share. */
  readonly all: number;
}

interface PeerLogsOptions {
  readonly log: Log;
  readonly clock: Clock;
  readonly limits?: PeerLogLimits | undefined;
  /** Whether the name is the manager's: others take nothing from what it has. */
  readonly isManager?: ((peer: string) => boolean) | undefined;
  /** A line was left out. */
  readonly onLeftOut?: ((peer: string) => void) | undefined;
}

const KIB = 1024;
const WINDOW_MS = 60_000;
const defaultLimits: PeerLogLimits = { each: 32 * KIB, all: 160 * KIB };

/** Of one text of a line, in bytes. */
const LONGEST_TEXT_BYTES = 1024;
/** Time, level and the signs around the fields of a line. */
const FRAME_BYTES = 100;
/** What a name has before it takes of what all share: a few noisy ones silence no other. */
const RESERVE_BYTES = 2 * KIB;
/** Names that have a reserve in one minute. */
const RESERVES = 64;
/** Names that have a part of their own in one minute. */
const KNOWN = 256;
/** Peers that are named of those whose lines were left out. */
const NAMED = 16;

type PeerLevel = "error" | "warn" | "info";

interface Said {
  /** Up to here what is said is not of what all share. */
  readonly reserve: number;
  bytes: number;
  leftOut: number;
}

/**
 * The log of what peers cause: each name has so many bytes of it in a minute. What is left out is counted, and said when the minute is
 * over. Beyond a reserve all names share a number of bytes; not so errors, for an operator must see them: only their own name's number
 * bounds them. Debug lines are not counted: they are off unless an operator looks.
 */
export class PeerLogs {
  readonly #log: Log;
  readonly #clock: Clock;
  readonly #limits: PeerLogLimits;
  readonly #isManager: (peer: string) => boolean;
  readonly #onLeftOut: (peer: string) => void;
  readonly #said = new Map<string, Said>();
  /** Of what all share. */
  #all = 0;
  #untilMs = 0;
  /** Where there is something to say at the end of the minute. */
  #end: Timer | undefined;

  constructor({ log, clock, limits = defaultLimits, isManager, onLeftOut = () => {} }: PeerLogsOptions) {
    this.#log = log;
    this.#clock = clock;
    this.#limits = limits;
    this.#isManager = isManager ?? (() => false);
    this.#onLeftOut = onLeftOut;
  }

  /** The log of what this peer causes. */
  of(peer: string): Log {
    return this.#of(peer, this.#log, {});
  }

  /** Says what was left out until now. */
  stop(): void {
    this.#endWindow();
  }

  #of(peer: string, log: Log, bound: LogFields): Log {
    const write =
      (level: PeerLevel) =>
      (event: string, fields: LogFields = {}) => {
        const short = shortened({ ...bound, ...fields });
        if (this.#admits(peer, level, bytesOf(event, short))) log[level](event, short);
      };
    return {
      error: write("error"),
      warn: write("warn"),
      info: write("info"),
      debug: (event, fields) => log.debug(event, { ...bound, ...fields }),
      trace: (event, fields) => log.trace(event, { ...bound, ...fields }),
      with: (fields) => this.#of(peer, log, { ...bound, ...fields }),
    };
  }

  #admits(peer: string, level: PeerLevel, bytes: number): boolean {
    const nowMs = this.#clock.monotonicMs();
    if (nowMs >= this.#untilMs) {
      this.#endWindow();
      this.#untilMs = nowMs + WINDOW_MS;
    }
    const said = this.#saidBy(peer);
    const after = said.bytes + bytes;
    const shared = level === "error" || after <= said.reserve ? 0 : bytes;
    if (after > this.#limits.each || (shared > 0 && this.#all + shared > this.#limits.all)) {
      said.leftOut += 1;
      const end = guarded("timer", () => this.#endWindow());
      this.#end ??= this.#clock.after(this.#untilMs - nowMs, end);
      this.#onLeftOut(peer);
      return false;
    }
    said.bytes = after;
    this.#all += shared;
    return true;
  }

  /** One peer can have many names: of a crowd the later ones are one. */
  #saidBy(peer: string): Said {
    const isManager = this.#isManager(peer);
    const isOne = isManager || this.#said.has(peer) || this.#said.size < KNOWN;
    const name = isOne ? peer : "others";
    const reserve = this.#said.size < RESERVES ? RESERVE_BYTES : 0;
    const said = this.#said.get(name) ?? { reserve: isManager ? this.#limits.each : reserve, bytes: 0, leftOut: 0 };
    this.#said.set(name, said);
    return said;
  }

  #endWindow(): void {
    this.#end?.cancel();
    this.#end = undefined;
    const silenced = [...this.#said].filter(([, { leftOut }]) => leftOut > 0);
    this.#said.clear();
    this.#all = 0;
    for (const [peer, { leftOut: count }] of silenced.slice(0, NAMED))
      this.#log.warn("log-lines-left-out", { peer, count });
    const more = silenced.slice(NAMED);
    const count = more.reduce((sum, [, { leftOut }]) => sum + leftOut, 0);
    if (count > 0) this.#log.warn("log-lines-left-out", { peers: more.length, count });
  }
}

function shortened(fields: LogFields): LogFields {
  return Object.fromEntries(Object.entries(fields).map(([name, of]) => [name, typeof of === "string" ? cut(of) : of]));
}

/** At a whole character. */
function cut(text: string): string {
  if (text.length <= LONGEST_TEXT_BYTES / 3) return text; // UTF-8 has at most three bytes for one of its units
  const bytes = Buffer.from(text);
  if (bytes.length <= LONGEST_TEXT_BYTES) return text;
  let end = LONGEST_TEXT_BYTES;
  while (((bytes[end] ?? 0) & 0xc0) === 0x80) end -= 1;
  return `${bytes.toString("utf8", 0, end)}… (${bytes.length} bytes)`;
}

/** As it is written: a control character takes six bytes. */
function bytesOf(event: string, fields: LogFields): number {
  const sizes = Object.entries(fields).map(([name, of]) => name.length + sizeOf(of));
  return sizes.reduce((sum, bytes) => sum + bytes, FRAME_BYTES + event.length);
}

/** Of a number or what else is short. */
const SMALL_BYTES = 16;

function sizeOf(value: unknown): number {
  return typeof value === "string" ? Buffer.byteLength(JSON.stringify(value)) : SMALL_BYTES;
}
