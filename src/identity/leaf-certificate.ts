// What a certificate must be as the leaf of a workload, and whose it is.
import { type Certificate, KEY_USAGE } from "./certificate.ts";
import { keyProblem } from "./certificate-key.ts";
import { IdentityError } from "./error.ts";
import { parseSpiffeId, type SpiffeId } from "./spiffe-id.ts";

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

/** TLS takes no signature of an RSA key either (rpc/http2/tls.ts): it refuses before this check runs. */
export function leafKeyProblem({ key }: Certificate): string | undefined {
  const problem = key.kind === "rsa" ? "has an RSA key, where NSM's tokens need an EC key" : keyProblem(key);
  return problem && `its certificate ${problem}`;
}

/** The error of a peer that is not trusted, with the reason. */
export function untrusted(problem: string, spiffeId?: SpiffeId): IdentityError {
  return new IdentityError({ kind: "untrusted-peer", problem, ...(spiffeId === undefined ? {} : { spiffeId }) });
}
