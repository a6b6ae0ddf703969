import { IdentityError } from "./error.ts";

declare const brand: unique symbol;
/** A valid SPIFFE ID, for example "spiffe://example.org/ns/nsm-system/pod/nsmgr-x7k2p". */
export type SpiffeId = string & { readonly [brand]: "SpiffeId" };

const scheme = "spiffe://";
/** SPIFFE-ID, section 2.3: longer ones need not be supported; none are issued. */
const LONGEST_ID_BYTES = 2048;
/** SPIFFE-ID, section 2.1. */
const LONGEST_TRUST_DOMAIN_BYTES = 255;

/**
 * Checks a text against SPIFFE-ID, sections 2.1 to 2.3. A path is not demanded: the ID of a trust domain has none.
 * @throws {IdentityError} kind "bad-spiffe-id"
 */
export function parseSpiffeId(text: string): SpiffeId {
  const problem = findProblem(text);
  if (problem !== undefined) throw new IdentityError({ kind: "bad-spiffe-id", text, problem });
  return text as SpiffeId;
}

/** "example.org" of "spiffe://example.org/a/b". */
export function trustDomainOf(id: SpiffeId): string {
  return splitId(id).domain;
}

/** Whether the ID names a workload, not a whole trust domain. */
export function hasPath(id: SpiffeId): boolean {
  return splitId(id).path !== "";
}

function splitId(id: string): { domain: string; path: string } {
  const slash = id.indexOf("/", scheme.length);
  const end = slash === -1 ? id.length : slash;
  return { domain: id.slice(scheme.length, end), path: id.slice(end) };
}

function findProblem(text: string): string | undefined {
  if (!text.startsWith(scheme)) return `want it to start with ${scheme}`;
  if (text.length > LONGEST_ID_BYTES) return `longer than ${LONGEST_ID_BYTES} characters`;
  const { domain, path } = splitId(text);
  if (domain === "") return "the trust domain is missing";
  if (domain.length > LONGEST_TRUST_DOMAIN_BYTES) return `trust domain longer than ${LONGEST_TRUST_DOMAIN_BYTES}`;
  if (!/^[a-z0-9._-]+$/.test(domain)) return "a trust domain has only a-z, 0-9, dot, dash and underscore";
  if (path === "") return undefined;
  return path
    .slice(1)
    .split("/")
    .map(segmentProblem)
    .find((problem) => problem !== undefined);
}

function segmentProblem(segment: string): string | undefined {
  if (segment === "") return "its path has an empty segment";
  if (segment === "." || segment === "..") return "its path has a dot segment";
  if (!/^[A-Za-z0-9._-]+$/.test(segment)) return "a path has only letters, digits, dot, dash, underscore and slash";
  return undefined;
}
