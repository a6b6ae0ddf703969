import { createPrivateKey, type KeyObject } from "node:crypto";
import type { X509SVIDResponse } from "../gen/workload_pb.ts";
import { type Certificate, KEY_USAGE, readCertificates } from "./certificate.ts";
import { IdentityError } from "./error.ts";
import { idOfLeaf, leafProblem } from "./leaf-certificate.ts";
import { hasPath, parseSpiffeId, type SpiffeId, trustDomainOf } from "./spiffe-id.ts";
import type { SpiffeIdPattern } from "./spiffe-id-pattern.ts";
import type { TrustBundles } from "./verify-peer-chain.ts";

/** Our own identity document with its key. Never logged whole. */
export interface Svid {
  readonly id: SpiffeId;
  /** Leaf first, then intermediates; the root is in the bundle. */
  readonly certChainPem: string;
  readonly keyPem: string;
  readonly key: KeyObject;
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
  /** Serial of the leaf in hex, to distinguish one rotation from the next in logs. */
  readonly serial: string;
}

/** Which SVID is ours where the agent issues several: more than one registration entry may match our pod. */
export interface SvidChoice {
  /** The SPIFFE ID that we have; it is kept while it is issued, for peers know us by it. */
  readonly current?: string | undefined;
  /** NSM_SPIFFE_ID: no other is taken. */
  readonly wanted?: readonly SpiffeIdPattern[] | undefined;
}

/** One answer of the Workload API, checked. */
export interface X509Context {
  readonly svid: Svid;
  /** The SPIFFE IDs of all that was issued, in the answer's order. */
  readonly issued: readonly string[];
  readonly bundles: TrustBundles;
  /** Trust domains whose bundle could not be read, with the reason: their peers will be refused. */
  readonly brokenBundles: readonly { readonly trustDomain: string; readonly problem: string }[];
}

/**
 * Reads an answer of FetchX509SVID. Where nothing else is chosen, the first SVID is the default one.
 * A broken bundle of a federated domain costs only that domain.
 * @throws {IdentityError} kind "bad-svid" or "unusable-key"
 */
export function readX509Context(response: X509SVIDResponse, choice: SvidChoice = {}): X509Context {
  const issued = response.svids.map(({ spiffeId }) => spiffeId);
  const ours = response.svids[choose(issued, choice)];
  if (ours === undefined) throw badSvid("the answer holds none");
  const svid = readSvid(Buffer.from(ours.x509Svid), Buffer.from(ours.x509SvidKey));
  const ownDomain = trustDomainOf(svid.id);
  const bundles = new Map([[ownDomain, orBadSvid(() => readBundle(Buffer.from(ours.bundle)))]]);
  const brokenBundles: { trustDomain: string; problem: string }[] = [];
  const others = response.svids
    .filter((one) => one !== ours)
    .map(({ spiffeId, bundle }) => [spiffeId, bundle] as const);
  for (const [id, der] of [...others, ...Object.entries(response.federatedBundles)]) {
    try {
      const trustDomain = trustDomainOf(parseSpiffeId(id));
      if (trustDomain !== ownDomain) bundles.set(trustDomain, readBundle(Buffer.from(der)));
    } catch (error) {
      brokenBundles.push({ trustDomain: id, problem: (error as Error).message });
    }
  }
  return { svid, issued, bundles, brokenBundles };
}

/** @throws {IdentityError} kind "bad-svid" where none of those that are issued matches. */
function choose(issued: readonly string[], { current, wanted }: SvidChoice): number {
  const fits = (id: string) => !wanted || wanted.some((pattern) => pattern.matches(id));
  const kept = issued.findIndex((id) => id === current && fits(id));
  const chosen = kept >= 0 ? kept : issued.findIndex(fits);
  if (chosen >= 0 || issued.length === 0) return chosen;
  const patterns = wanted?.map(({ text }) => text).join(" or ");
  throw badSvid(`NSM_SPIFFE_ID wants ${patterns}, and the SPIRE agent issues ${issued.join(", ")}`);
}

/**
 * @param certificatesDer leaf and intermediates, DER one after the other
 * @param keyDer PKCS#8
 * @throws {IdentityError} kind "bad-svid" or "unusable-key"
 */
export function readSvid(certificatesDer: Buffer, keyDer: Buffer): Svid {
  const [leaf, ...intermediates] = orBadSvid(() => readCertificates(certificatesDer));
  if (leaf === undefined) throw badSvid("it holds no certificate");
  const id = orBadSvid(() => idOfLeaf(leaf));
  const problem = (hasPath(id) ? undefined : "it names a whole trust domain") ?? ownLeafProblem(leaf, intermediates);
  if (problem !== undefined) throw badSvid(problem);
  const key = orBadSvid(() => createPrivateKey({ key: keyDer, format: "der", type: "pkcs8" }));
  requireP256(key);
  if (!leaf.x509.checkPrivateKey(key)) throw badSvid("its key does not belong to its certificate");
  return {
    id,
    certChainPem: [leaf, ...intermediates].map((certificate) => certificate.x509.toString()).join(""),
    keyPem: key.export({ type: "pkcs8", format: "pem" }).toString(),
    key,
    notBeforeMs: leaf.notBeforeMs,
    notAfterMs: leaf.notAfterMs,
    serial: leaf.x509.serialNumber,
  };
}

/** go-spiffe requires more of an SVID of its own than of a peer's. */
function ownLeafProblem(leaf: Certificate, intermediates: readonly Certificate[]): string | undefined {
  if (!((leaf.keyUsage ?? 0) & KEY_USAGE.digitalSignature)) return "its certificate lacks digitalSignature";
  const isSigning = (certificate: Certificate) =>
    certificate.isCa && ((certificate.keyUsage ?? 0) & KEY_USAGE.keyCertSign) !== 0;
  if (!intermediates.every(isSigning)) return "one of its intermediate certificates may not sign";
  return leafProblem(leaf);
}

/** Found out here, once, and not at every call: golang-jwt, and so every NSM peer, knows ES256 alone (W13). */
function requireP256(key: KeyObject): void {
  const curve = key.asymmetricKeyDetails?.namedCurve;
  if (key.asymmetricKeyType === "ec" && curve === "prime256v1") return;
  throw new IdentityError({
    kind: "unusable-key",
    found: curve === undefined ? String(key.asymmetricKeyType) : `EC ${curve}`,
  });
}

function readBundle(der: Buffer): readonly Certificate[] {
  const authorities = readCertificates(der);
  if (authorities.length === 0) throw new IdentityError({ kind: "bad-certificate", problem: "the bundle is empty" });
  return authorities;
}

function orBadSvid<T>(read: () => T): T {
  try {
    return read();
  } catch (error) {
    throw new IdentityError({ kind: "bad-svid", problem: (error as Error).message }, { cause: error });
  }
}

function badSvid(problem: string): IdentityError {
  return new IdentityError({ kind: "bad-svid", problem });
}
