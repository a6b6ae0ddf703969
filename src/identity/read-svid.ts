import { createPrivateKey, type KeyObject } from "node:crypto";
import type { X509SVIDResponse } from "../gen/workload_pb.ts";
import { type Certificate, KEY_USAGE, readCertificates } from "./certificate.ts";
import { IdentityError } from "./error.ts";
import { hasPath, parseSpiffeId, type SpiffeId, trustDomainOf } from "./spiffe-id.ts";
import { idOfLeaf, leafProblem, type TrustBundles } from "./verify-peer-chain.ts";

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

/** One answer of the Workload API, checked. */
export interface X509Context {
  readonly svid: Svid;
  readonly bundles: TrustBundles;
  /** Trust domains whose bundle could not be read, with the reason: their peers will be refused. */
  readonly brokenBundles: readonly { readonly trustDomain: string; readonly problem: string }[];
}

/**
 * Reads an answer of FetchX509SVID. The first SVID is the default one; hints are for workloads that choose.
 * A broken bundle of a federated domain costs only that domain.
 * @throws {IdentityError} kind "bad-svid" or "unusable-key"
 */
export function readX509Context(response: X509SVIDResponse): X509Context {
  const [first] = response.svids;
  if (first === undefined) throw new IdentityError({ kind: "bad-svid", problem: "the answer holds none" });
  const svid = readSvid(Buffer.from(first.x509Svid), Buffer.from(first.x509SvidKey));
  const ownDomain = trustDomainOf(svid.id);
  const bundles = new Map([[ownDomain, orBadSvid(() => readBundle(Buffer.from(first.bundle)))]]);
  const brokenBundles: { trustDomain: string; problem: string }[] = [];
  const others = response.svids.slice(1).map(({ spiffeId, bundle }) => [spiffeId, bundle] as const);
  for (const [id, der] of [...others, ...Object.entries(response.federatedBundles)]) {
    try {
      const trustDomain = trustDomainOf(parseSpiffeId(id));
      if (trustDomain !== ownDomain) bundles.set(trustDomain, readBundle(Buffer.from(der)));
    } catch (error) {
      brokenBundles.push({ trustDomain: id, problem: (error as Error).message });
    }
  }
  return { svid, bundles, brokenBundles };
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
