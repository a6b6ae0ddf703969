import type { IssuedToken } from "./jwt.ts";

const TOKEN = "nsm-client-token";
const EXPIRES = "nsm-client-token-expires";

/** The headers of every call we make. The token's audience is the server, so they are built per connection. */
export function tokenHeaders(issued: IssuedToken): Readonly<Record<string, string>> {
  return { [TOKEN]: issued.token, [EXPIRES]: formatTime(issued.expiresMs) };
}

/**
 * The caller's token and the time that its header gives, in ms since 1970. Undefined unless both headers are there
 * exactly once and well formed. The header's time is the caller's word; the token's own `exp` is signed (W7).
 */
export function readTokenHeaders(metadata: ReadonlyMap<string, readonly string[]>): IssuedToken | undefined {
  const token = onlyValue(metadata.get(TOKEN));
  const expires = onlyValue(metadata.get(EXPIRES));
  if (token === undefined || expires === undefined) return undefined;
  const expiresMs = parseTime(expires);
  return expiresMs === undefined ? undefined : { token, expiresMs };
}

function onlyValue(values: readonly string[] | undefined): string | undefined {
  return values?.length === 1 ? values[0] : undefined;
}

/** RFC 3339 as Go's RFC3339Nano writes it: no trailing zeros in the fraction, and no fraction when it is zero. */
function formatTime(ms: number): string {
  return new Date(ms).toISOString().replace(/\.?0+Z$/, "Z");
}

const rfc3339 = /^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-](\d\d):(\d\d))$/;

/** ms since 1970, nanoseconds cut off; undefined when the text is no RFC 3339 time. */
function parseTime(text: string): number | undefined {
  const [, local, fraction = "", zone = "", hours = "0", minutes = "0"] = rfc3339.exec(text) ?? [];
  if (local === undefined) return undefined;
  const utcMs = Date.parse(`${local}Z`);
  // Date.parse rolls 30 February over to March.
  if (Number.isNaN(utcMs) || !new Date(utcMs).toISOString().startsWith(local)) return undefined;
  if (Number(hours) > 23 || Number(minutes) > 59) return undefined;
  const offsetMs = (Number(hours) * 60 + Number(minutes)) * 60_000 * (zone.startsWith("-") ? -1 : 1);
  return utcMs + Number(fraction.padEnd(3, "0").slice(0, 3)) - offsetMs;
}
