import { type Certificate, KEY_USAGE, readCertificate } from "./certificate.ts";
import { IdentityError } from "./error.ts";
import { parseSpiffeId, type SpiffeId, trustDomainOf } from "./spiffe-id.ts";

/** Authorities by trust domain: our own and those federated with it. */
export type TrustBundles = ReadonlyMap<string, readonly Certificate[]>;

/** A peer whose certificate leads to an authority of the trust domain that it names. */
export interface VerifiedPeer {
  readonly id: SpiffeId;
  readonly leaf: Certificate;
}

/** More certificates than any sane authority has between leaf and root; bounds what a stranger can make us compute. */
const MOST_CERTIFICATES = 10;

/**
 * As in Go's crypto/x509. Without it ten certificates that all vouch for each other are tried in every order: minutes of
 * work in which nobody else is served.
 */
const MOST_SIGNATURE_CHECKS = 100;

/**
 * Verifies a peer as go-spiffe does: the leaf's own rules, then a chain to the bundle of the trust domain the leaf names.
 * @throws {IdentityError} kind "untrusted-peer" with the reason
 */
export function verifyPeerChain(chainDer: readonly Buffer[], bundles: TrustBundles, nowMs: number): VerifiedPeer {
  if (chainDer.length > MOST_CERTIFICATES) throw untrusted(`it sent ${chainDer.length} certificates`);
  const [leaf, ...intermediates] = chainDer.map(readPeerCertificate);
  if (leaf === undefined) throw untrusted("it sent no certificate");
  const id = idOfLeaf(leaf);
  const problem = leafProblem(leaf);
  if (problem !== undefined) throw untrusted(problem, id);
  const roots = bundles.get(trustDomainOf(id));
  if (roots === undefined) {
    const known = [...bundles.keys()].join(", ");
    throw untrusted(`no trust bundle of its trust domain ${trustDomainOf(id)}; there are those of: ${known}`, id);
  }
  const why = findChain({ leaf, intermediates, roots, nowMs, signatureChecks: 0 });
  if (why !== undefined) throw untrusted(why, id);
  return { id, leaf };
}

/**
 * The SPIFFE ID of a certificate: its only URI name.
 * @throws {IdentityError} kind "untrusted-peer"
 */
export function idOfLeaf(leaf: Certificate): SpiffeId {
  const [uri, ...more] = leaf.uris;
  if (uri === undefined) throw untrusted("its certificate has no URI name, so it is no SVID");
  if (more.length > 0) throw untrusted("its certificate has more than one URI name");
  try {
    return parseSpiffeId(uri);
  } catch (error) {
    throw untrusted((error as Error).message);
  }
}

/** What makes a certificate no leaf of a workload (X509-SVID, sections 4 and 5); undefined when it is one. */
export function leafProblem(leaf: Certificate): string | undefined {
  const usage = leaf.keyUsage ?? 0;
  if (leaf.isCa) return "its certificate is one of an authority (CA flag)";
  if (usage & KEY_USAGE.keyCertSign) return "its certificate may sign certificates (keyCertSign)";
  if (usage & KEY_USAGE.crlSign) return "its certificate may sign revocations (cRLSign)";
  return undefined;
}

function readPeerCertificate(der: Buffer): Certificate {
  try {
    return readCertificate(der);
  } catch (error) {
    throw new IdentityError({ kind: "untrusted-peer", problem: (error as Error).message }, { cause: error });
  }
}

interface Search {
  readonly leaf: Certificate;
  readonly intermediates: readonly Certificate[];
  readonly roots: readonly Certificate[];
  readonly nowMs: number;
  signatureChecks: number;
}

/** Undefined when a chain holds; else why the most promising one does not. */
function findChain(search: Search): string | undefined {
  const problem = certificateProblem(search.leaf, search.nowMs, "its certificate");
  if (problem !== undefined) return problem;
  return climb(search, search.leaf, new Set());
}

/** Looks for an issuer of `below` among the roots first, then among the intermediates that were not used yet. */
function climb(search: Search, below: Certificate, used: ReadonlySet<Certificate>): string | undefined {
  let why: string | undefined;
  for (const root of search.roots) {
    if (!isIssuedBy(search, below, root)) continue;
    const problem = authorityProblem(root, search, used.size, "the authority in the trust bundle");
    if (problem === undefined) return undefined;
    why ??= problem;
  }
  for (const middle of search.intermediates) {
    if (used.has(middle) || !isIssuedBy(search, below, middle)) continue;
    const problem =
      authorityProblem(middle, search, used.size, "an intermediate certificate") ??
      climb(search, middle, new Set([...used, middle]));
    if (problem === undefined) return undefined;
    why ??= problem;
  }
  return why ?? "its certificate leads to no authority of the trust bundle of its trust domain";
}

function isIssuedBy(search: Search, below: Certificate, issuer: Certificate): boolean {
  if (!below.x509.checkIssued(issuer.x509)) return false;
  search.signatureChecks += 1;
  if (search.signatureChecks > MOST_SIGNATURE_CHECKS) {
    throw untrusted(`its chain takes more than ${MOST_SIGNATURE_CHECKS} signature checks`);
  }
  return below.x509.verify(issuer.x509.publicKey);
}

function authorityProblem(authority: Certificate, search: Search, below: number, what: string): string | undefined {
  const { isCa, keyUsage, pathLength } = authority;
  if (!isCa) return `${what} is none of an authority (no CA flag)`;
  if (keyUsage !== undefined && !(keyUsage & KEY_USAGE.keyCertSign)) return `${what} may not sign (no keyCertSign)`;
  if (pathLength !== undefined && pathLength < below)
    return `${what} allows ${pathLength} below it, there are ${below}`;
  return constraintProblem(authority, search.leaf, what) ?? certificateProblem(authority, search.nowMs, what);
}

function certificateProblem(certificate: Certificate, nowMs: number, what: string): string | undefined {
  if (nowMs < certificate.notBeforeMs) return `${what} is valid only from ${iso(certificate.notBeforeMs)}`;
  if (nowMs > certificate.notAfterMs) return `${what} expired at ${iso(certificate.notAfterMs)}`;
  if (certificate.unknownCritical.length > 0) {
    return `${what} has critical extensions unknown here: ${certificate.unknownCritical.join(", ")}`;
  }
  return undefined;
}

/** RFC 5280, 4.2.1.10: a URI constraint names a host, or with a leading dot all hosts below one. */
function constraintProblem(authority: Certificate, leaf: Certificate, what: string): string | undefined {
  const { permitted, excluded } = authority.uriConstraints;
  const host = leaf.uris.map((uri) => trustDomainOf(parseSpiffeId(uri)))[0] ?? "";
  const isWithin = (constraint: string) =>
    constraint.startsWith(".") ? host.endsWith(constraint) : host === constraint;
  if (excluded.some(isWithin)) return `${what} excludes the trust domain ${host}`;
  if (permitted.length > 0 && !permitted.some(isWithin)) return `${what} does not permit the trust domain ${host}`;
  return undefined;
}

function iso(ms: number): string {
  return new Date(ms).toISOString();
}

function untrusted(problem: string, spiffeId?: SpiffeId): IdentityError {
  return new IdentityError({ kind: "untrusted-peer", problem, ...(spiffeId === undefined ? {} : { spiffeId }) });
}
