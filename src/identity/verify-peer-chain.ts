import { type Certificate, KEY_USAGE, readCertificate } from "./certificate.ts";
import { keyProblem, signatureProblem } from "./certificate-key.ts";
import { IdentityError } from "./error.ts";
import { idOfLeaf, leafKeyProblem, leafProblem, untrusted } from "./leaf-certificate.ts";
import { constraintProblem } from "./name-constraints.ts";
import { type SpiffeId, trustDomainOf } from "./spiffe-id.ts";

/** Authorities by trust domain: our own and those federated with it. */
export type TrustBundles = ReadonlyMap<string, readonly Certificate[]>;

/** A peer whose certificate leads to an authority of the trust domain that it names. */
interface VerifiedPeer {
  readonly id: SpiffeId;
  readonly leaf: Certificate;
}

/** More certificates than any sane authority has between leaf and root. */
const MOST_CERTIFICATES = 10;

/** Of all certificates of a peer together, in bytes. One of SPIRE's has 0.6 to 2 KB. TLS reads no more either (rpc/http2/tls.ts). */
const MOST_CHAIN_BYTES = 16_384;

/**
 * Certificates that all vouch for each other could be tried in every order. Go's crypto/x509 stops at 100 checks; a check
 * takes the main thread 0.1 ms (P-256) to 3 ms (P-521), and an honest chain takes one for each certificate.
 */
const MOST_SIGNATURE_CHECKS = 12;

/**
 * Verifies a peer as go-spiffe does: the leaf's own rules, then a chain to the bundle of the trust domain the leaf names.
 * @throws {IdentityError} kind "untrusted-peer" with the reason
 */
export function verifyPeerChain(chainDer: readonly Buffer[], bundles: TrustBundles, nowMs: number): VerifiedPeer {
  if (chainDer.length > MOST_CERTIFICATES) throw untrusted(`it sent ${chainDer.length} certificates`);
  const bytes = chainDer.reduce((sum, der) => sum + der.length, 0);
  if (bytes > MOST_CHAIN_BYTES) throw untrusted(`its certificates have ${bytes} bytes; ${MOST_CHAIN_BYTES} are read`);
  const [leaf, ...intermediates] = chainDer.map(readPeerCertificate);
  if (leaf === undefined) throw untrusted("it sent no certificate");
  const id = idOfLeaf(leaf);
  const problem = leafProblem(leaf) ?? leafKeyProblem(leaf);
  if (problem !== undefined) throw untrusted(problem, id);
  const roots = bundles.get(trustDomainOf(id));
  if (roots === undefined) {
    const known = [...bundles.keys()].join(", ");
    throw untrusted(`no trust bundle of its trust domain ${trustDomainOf(id)}; there are those of: ${known}`, id);
  }
  const why = findChain({ leaf, intermediates, roots, nowMs, signatureChecks: 0, problem: undefined });
  if (why !== undefined) throw untrusted(why, id);
  return { id, leaf };
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
  /** The first thing found wrong on the way: the most promising way is tried first. */
  problem: string | undefined;
}

/** Undefined when a chain holds; else why the most promising one does not. */
function findChain(search: Search): string | undefined {
  const problem = certificateProblem(search.leaf, search.nowMs, "its certificate");
  if (problem !== undefined) return problem;
  if (climb(search, search.leaf, new Set())) return undefined;
  return search.problem ?? "its certificate leads to no authority of the trust bundle of its trust domain";
}

const A_ROOT = "the authority in the trust bundle";
const A_MIDDLE = "an intermediate certificate";

/** Searches for an issuer of `below` among the roots first, then among the intermediates that were not used yet. */
function climb(search: Search, below: Certificate, used: ReadonlySet<Certificate>): boolean {
  const holds = (issuer: Certificate, what: string) =>
    isIssuedBy(search, below, issuer, what) && isFit(search, authorityProblem(issuer, search, used, what));
  if (search.roots.some((root) => holds(root, A_ROOT))) return true;
  const unused = search.intermediates.filter((middle) => !used.has(middle));
  return unused.some((middle) => holds(middle, A_MIDDLE) && climb(search, middle, new Set([...used, middle])));
}

function isFit(search: Search, problem: string | undefined): boolean {
  search.problem ??= problem;
  return problem === undefined;
}

/** Checks what a signature would cost to verify before it verifies it. */
function isIssuedBy(search: Search, below: Certificate, issuer: Certificate, what: string): boolean {
  if (!isNamedIssuer(below, issuer)) return false;
  const keyFault = keyProblem(issuer.key);
  if (!isFit(search, keyFault && `${what} ${keyFault}`)) return false;
  const algorithmFault = signatureProblem(below.signatureAlgorithm);
  if (!isFit(search, algorithmFault && `a certificate of its chain ${algorithmFault}`)) return false;
  search.signatureChecks += 1;
  if (search.signatureChecks > MOST_SIGNATURE_CHECKS) {
    throw untrusted(`its chain takes more than ${MOST_SIGNATURE_CHECKS} signature checks`);
  }
  return hasSigned(issuer, below);
}

function hasSigned(issuer: Certificate, below: Certificate): boolean {
  try {
    return below.x509.verify(issuer.x509.publicKey);
  } catch {
    return false; // OpenSSL makes no key of a point that is not on its curve
  }
}

function isNamedIssuer(below: Certificate, issuer: Certificate): boolean {
  if (!below.issuer.equals(issuer.subject)) return false;
  // SPIRE's authorities all have one name; the identifiers of their keys distinguish them.
  return below.issuerKeyId === undefined || issuer.keyId === undefined || below.issuerKeyId.equals(issuer.keyId);
}

/** `below` are the authorities between this one and the leaf. */
function authorityProblem(
  authority: Certificate,
  search: Search,
  below: ReadonlySet<Certificate>,
  what: string,
): string | undefined {
  const { isCa, keyUsage, pathLength, constraints } = authority;
  if (!isCa) return `${what} is none of an authority (no CA flag)`;
  if (keyUsage !== undefined && !(keyUsage & KEY_USAGE.keyCertSign)) return `${what} may not sign (no keyCertSign)`;
  if (pathLength !== undefined && pathLength < below.size)
    return `${what} allows ${pathLength} below it, there are ${below.size}`;
  // Not the leaf's alone: RFC 5280, 6.1.3; X509-SVID, 4.2.
  const names = [search.leaf, ...below].flatMap((certificate) => certificate.names);
  const outside = constraints && constraintProblem(names, constraints);
  return outside === undefined ? certificateProblem(authority, search.nowMs, what) : `${what} ${outside}`;
}

/** Written so that a date that is no number is a problem too. */
function certificateProblem(certificate: Certificate, nowMs: number, what: string): string | undefined {
  if (!(nowMs >= certificate.notBeforeMs)) return `${what} is valid only from ${iso(certificate.notBeforeMs)}`;
  if (!(nowMs <= certificate.notAfterMs)) return `${what} expired at ${iso(certificate.notAfterMs)}`;
  if (certificate.unknownCritical.length > 0) {
    return `${what} has critical extensions unknown here: ${certificate.unknownCritical.join(", ")}`;
  }
  return undefined;
}

function iso(ms: number): string {
  return new Date(ms).toISOString();
}
