// The spellings of configuration values: Go's, because the manifests of this field are written for it.
// Not by the door, as in config.ts: it would load certificates and the Workload API.
import { parseSpiffeIdPattern, type SpiffeIdPattern } from "./identity/spiffe-id-pattern.ts";
import type { LogLevel } from "./telemetry/index.ts";

/** A kind of value: how operators call it and how its text is read. */
export interface ValueKind<T> {
  /** For the table of variables. */
  readonly title: string;
  /**
   * @throws {SyntaxError} with what was expected, and nothing else: the caller names the variable and the text.
   */
  parse(text: string): T;
  /** What a variable is that is set to nothing; without it, such a one counts as not set. */
  readonly none?: T;
}

/** Where to listen: `localhost:9871`, `[::1]:9871`. */
export interface ListenAddress {
  readonly host: string;
  /** 0 lets the kernel choose. */
  readonly port: number;
}

/** Any text. */
export const text: ValueKind<string> = { title: "text", parse: (given) => given };

/** A path; relative ones start at the working directory. */
export const path: ValueKind<string> = {
  title: "path",
  parse: (given) => (given.includes("\0") ? wanted("a path without NUL characters") : given),
};

/** `true` or `false`, and whatever else Go's strconv.ParseBool takes. */
export const flag: ValueKind<boolean> = {
  title: "true or false",
  parse(given) {
    if (/^(1|t|T|TRUE|true|True)$/.test(given)) return true;
    return /^(0|f|F|FALSE|false|False)$/.test(given) ? false : wanted("true or false");
  },
};

const NS_PER_UNIT: Readonly<Record<string, number>> = {
  ns: 1,
  us: 1e3,
  µs: 1e3, // U+00B5, micro sign
  μs: 1e3, // U+03BC, Greek letter mu
  ms: 1e6,
  s: 1e9,
  m: 60e9,
  h: 3600e9,
};

/** What an int64 of nanoseconds holds: 292 years. */
const LONGEST_MS = 2 ** 63 / 1e6;

/**
 * A duration in Go's spelling (`1h30m`, `50ms`, `1.5s`), as milliseconds.
 * @param least in the same spelling: what is done more often than that does nothing else.
 * @param zero what a duration of nothing means, where the original takes one.
 */
export function durationFrom(least: string, zero?: string): ValueKind<number> {
  const leastMs = milliseconds(least);
  const want = `a duration of at least ${least} with its unit, like 1h30m, 10s or 50ms${zero === undefined ? "" : ", or 0"}`;
  return {
    title: "duration",
    parse(given) {
      const ms = given === "0" ? 0 : milliseconds(given);
      if (ms === 0 && zero !== undefined) return milliseconds(zero);
      if (ms >= LONGEST_MS) return wanted("a duration of at most 2562047h, as in Go");
      return ms >= leastMs ? ms : wanted(want);
    },
  };
}

/** NaN where it is none. */
function milliseconds(given: string): number {
  if (!/^\+?((\d+(\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h))+$/.test(given)) return Number.NaN;
  const parts = [...given.matchAll(/(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h)/g)];
  const ns = parts.reduce((sum, [, count, unit]) => sum + Number(count) * (NS_PER_UNIT[unit ?? ""] ?? Number.NaN), 0);
  return ns / 1e6;
}

/** Texts between commas; spaces around them do not count. */
export const list: ValueKind<readonly string[]> = {
  title: "list",
  parse: (given) => Object.freeze(given.split(",").map((item) => item.trim() || wanted("texts between commas"))),
};

/** The same; set to nothing it is a list without a text, as for the original. */
export const listOrNone: ValueKind<readonly string[]> = { ...list, none: Object.freeze([]) };

/** Patterns between commas; one that matches is enough. */
export const spiffeIds: ValueKind<readonly SpiffeIdPattern[]> = {
  title: "SPIFFE IDs",
  parse: (given) => Object.freeze(list.parse(given).map(parseSpiffeIdPattern)),
};

/** `k:v,k2:v2`; set to nothing it is no label, as for the original. The value may hold further colons. */
export const labels: ValueKind<Readonly<Record<string, string>>> = {
  title: "labels",
  none: Object.freeze({}),
  parse(given) {
    const pairs = given.split(",").map((pair) => /^\s*([^:\s]+)\s*:(.*)$/.exec(pair) ?? wanted("pairs like k:v,k2:v2"));
    const names = pairs.map((pair) => pair[1] ?? "");
    if (new Set(names).size < names.length) wanted("each label once, like k:v,k2:v2");
    return Object.freeze(Object.fromEntries(pairs.map((pair) => [pair[1], pair[2]?.trim()])) as Record<string, string>);
  },
};

/** Names of levels in the manifests of this field; `fatal` and `panic` are said as `error` here. */
const LEVELS: Readonly<Record<string, LogLevel>> = {
  trace: "trace",
  debug: "debug",
  info: "info",
  warn: "warn",
  warning: "warn",
  error: "error",
  fatal: "error",
  panic: "error",
};

/** A log level in capitals or not. */
export const logLevel: ValueKind<LogLevel> = {
  title: "level",
  parse: (given) => LEVELS[given.toLowerCase()] ?? wanted("one of TRACE, DEBUG, INFO, WARN, ERROR"),
};

/** `unix:///path` or `tcp://host:port`. */
export const socketUrl: ValueKind<string> = {
  title: "URL",
  parse(given) {
    const socket = /^unix:(?:\/\/)?(\/[^\0?#/][^\0?#]*)$/.exec(given);
    if (socket) return `unix://${socket[1]}`;
    const tcp = /^tcp:\/\/(.*)$/.exec(given);
    return tcp && isHostPort(tcp[1] ?? "") ? given : wanted("unix:///path/of.sock or tcp://host:port");
  },
};

/** What gRPC takes for a target; read where something is sent there. */
export const collector: ValueKind<string> = { title: "gRPC target", parse: (given) => given };

/** Where to listen, or `off`. Without a host it is this machine's loopback address. */
export const listenOrOff: ValueKind<ListenAddress | undefined> = listenKind("localhost");

/** The same, but without a host it is every address of this machine: `dlv --listen=:50000` means that. */
export const listenAnywhereOrOff: ValueKind<ListenAddress | undefined> = listenKind("0.0.0.0");

function listenKind(standardHost: string): ValueKind<ListenAddress | undefined> {
  return {
    title: "[host]:port or off",
    parse(given) {
      if (given === "off") return undefined;
      const found = splitHostPort(given);
      if (found === undefined) return wanted("[host]:port, like localhost:9871, or off");
      return Object.freeze({ host: found.host === "" ? standardHost : found.host, port: found.port });
    },
  };
}

function isHostPort(given: string): boolean {
  const found = splitHostPort(given);
  return found !== undefined && found.host !== "" && found.port > 0;
}

function splitHostPort(given: string): { host: string; port: number } | undefined {
  const found = /^(?:\[([0-9a-fA-F:.]+)\]|([^\s:/[\]]*)):(\d{1,5})$/.exec(given);
  const port = Number(found?.[3]);
  return found && port <= 65_535 ? { host: found[1] ?? found[2] ?? "", port } : undefined;
}

function wanted(what: string): never {
  throw new SyntaxError(what);
}
