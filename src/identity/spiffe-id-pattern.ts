import { IdentityError } from "./error.ts";
import { parseSpiffeId } from "./spiffe-id.ts";
import { matchesStars } from "./stars.ts";

/** A SPIFFE ID in whose path `*` matches any characters of one segment, and `**` as a whole segment any segments. */
export interface SpiffeIdPattern {
  readonly text: string;
  matches(spiffeId: string): boolean;
}

/** In place of each star, so that the rest can be checked as an ID. */
const SAMPLE = "a";

/**
 * Reads a pattern like `spiffe://example.org/ns/nsm-system/pod/nsmgr-*`. An ID without a star is a pattern that matches itself only.
 * The trust domain has no star: with a federated one any workload of another domain could be meant.
 * @throws {SyntaxError} with what was expected.
 */
export function parseSpiffeIdPattern(text: string): SpiffeIdPattern {
  const [scheme = "", empty = "", domain = "", ...segments] = text.split("/");
  if (domain.includes("*")) throw new SyntaxError(`a trust domain without a star in ${JSON.stringify(text)}`);
  if (segments.length === 0) throw new SyntaxError(`a path after the trust domain in ${JSON.stringify(text)}`);
  const mixed = segments.find((segment) => segment.includes("**") && segment !== "**");
  if (mixed !== undefined) throw new SyntaxError(`** as a whole segment, not in ${JSON.stringify(mixed)}`);
  try {
    parseSpiffeId([scheme, empty, domain, ...segments].join("/").replaceAll("*", SAMPLE));
  } catch (error) {
    if (!(error instanceof IdentityError && error.fault.kind === "bad-spiffe-id")) throw error;
    throw new SyntaxError(`a SPIFFE ID with * for a part of it: ${error.fault.problem}`);
  }
  const head = `${scheme}//${domain}`;
  return {
    text,
    matches(spiffeId) {
      if (!spiffeId.startsWith(`${head}/`)) return false;
      return matchesSegments(segments, spiffeId.slice(head.length + 1).split("/"));
    },
  };
}

function matchesSegments(pattern: readonly string[], path: readonly string[]): boolean {
  return matchesStars(pattern, path, { isStar: (part) => part === "**", fits: matchesSegment });
}

function matchesSegment(pattern: string, segment: string): boolean {
  const stars = { isStar: (part: string) => part === "*", fits: (part: string, char: string) => part === char };
  return matchesStars([...pattern], [...segment], stars);
}
