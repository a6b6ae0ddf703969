import { X509Certificate } from "node:crypto";
import type { Clock } from "../../src/async/index.ts";
import { createTestCa, type TestCa, type TestCertificate } from "./x509.ts";

/** Where SPIFFE IDs of the sandbox live by default. */
export const SANDBOX_TRUST_DOMAIN = "sandbox.test";

/** One X.509 SVID as it stands now. */
export interface IssuedSvid extends TestCertificate {
  readonly spiffeId: string;
  /** Milliseconds since 1970. */
  readonly notAfterMs: number;
}

export interface SpireOptions {
  readonly trustDomain?: string;
  /** Lifetime of an SVID in ms; an hour by default. */
  readonly lifetimeMs?: number;
  /** Each SVID is issued by an authority below the root, as where SPIRE has an upstream authority: another one each time. */
  readonly hasIntermediates?: boolean;
  /** The trust domain of an identity's path, where it is a federated one. */
  readonly federatedDomainOf?: (path: string) => string | undefined;
  readonly clock: Clock;
}

/**
 * The certificate authority of the sandbox: issues SVIDs, rotates them, changes its root, knows federated domains.
 * `workload-socket.ts` serves it as a SPIRE agent does; the pretend peers take their SVIDs straight from here.
 */
export class Spire {
  readonly trustDomain: string;
  readonly #lifetimeMs: number;
  readonly #hasIntermediates: boolean;
  readonly #federatedDomainOf: (path: string) => string | undefined;
  readonly #clock: Clock;
  /** Newest first; an SVID is issued by the newest, all are trusted. */
  readonly #authorities = new Map<string, readonly TestCa[]>();
  readonly #svids = new Map<string, IssuedSvid>();
  readonly #listeners = new Set<() => void>();
  #rotation: { cancel(): void } | undefined;

  constructor(options: SpireOptions) {
    this.trustDomain = options.trustDomain ?? SANDBOX_TRUST_DOMAIN;
    this.#lifetimeMs = options.lifetimeMs ?? 3_600_000;
    this.#hasIntermediates = options.hasIntermediates ?? false;
    this.#federatedDomainOf = options.federatedDomainOf ?? (() => undefined);
    this.#clock = options.clock;
    this.federate(this.trustDomain);
  }

  /** The full SPIFFE ID of a path: "nsmgr" → "spiffe://sandbox.test/nsmgr". */
  idOf(path: string): string {
    const domain = this.#federatedDomainOf(path) ?? this.trustDomain;
    if (!this.#authorities.has(domain)) this.federate(domain);
    return `spiffe://${domain}/${path}`;
  }

  /** The SVID of an identity; the same until it is rotated. @throws when its trust domain is not known here. */
  svid(spiffeId: string): IssuedSvid {
    const known = this.#svids.get(spiffeId);
    if (known !== undefined) return known;
    const [authority] = this.#authorities.get(trustDomainOf(spiffeId)) ?? [];
    if (authority === undefined) throw new Error(`Cannot issue ${spiffeId}: no authority of its trust domain`);
    const notAfterMs = this.#clock.now() + this.#lifetimeMs;
    const issuer = this.#hasIntermediates ? authority.intermediate() : authority;
    const svid = { ...issuer.issue({ spiffeId, notAfterMs }), spiffeId, notAfterMs };
    this.#svids.set(spiffeId, svid);
    return svid;
  }

  /** Roots in DER of every trust domain, by its name. */
  bundles(): ReadonlyMap<string, readonly Buffer[]> {
    return new Map([...this.#authorities].map(([domain, roots]) => [domain, roots.map(({ rootDer }) => rootDer)]));
  }

  /** Makes another trust domain known, with an authority of its own. */
  federate(trustDomain: string): void {
    this.#authorities.set(trustDomain, [createTestCa(trustDomain, this.#clock)]);
    this.#notify();
  }

  /** Issues again: one identity, or all. */
  rotate(spiffeId?: string): void {
    if (spiffeId === undefined) this.#svids.clear();
    else this.#svids.delete(spiffeId);
    this.#notify();
  }

  /** Rotates everything again and again, until `stop`. */
  rotateEvery(intervalMs: number): void {
    this.#rotation?.cancel();
    this.#rotation = this.#clock.after(intervalMs, () => {
      this.rotate();
      this.rotateEvery(intervalMs);
    });
  }

  /** A new root, and every SVID issued by it. `keepOld`: the old root stays trusted beside it. */
  replaceAuthority(options: { readonly keepOld: boolean }): void {
    const before = options.keepOld ? (this.#authorities.get(this.trustDomain) ?? []) : [];
    this.#authorities.set(this.trustDomain, [createTestCa(this.trustDomain, this.#clock), ...before]);
    this.rotate();
  }

  /** Calls back after every rotation and every change of a bundle. Returns how to stop. */
  onChange(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  stop(): void {
    this.#rotation?.cancel();
    this.#listeners.clear();
  }

  #notify(): void {
    for (const listener of [...this.#listeners]) listener();
  }
}

/** "spiffe://sandbox.test/nsmgr" → "sandbox.test"; empty when it is no SPIFFE ID. */
export function trustDomainOf(spiffeId: string): string {
  return /^spiffe:\/\/([^/]+)/.exec(spiffeId)?.[1] ?? "";
}

/** Who showed this chain, leaf first. @throws {Error} saying why it is not to be believed. */
export function verifyChain(
  chainDer: readonly Buffer[],
  bundles: ReadonlyMap<string, readonly Buffer[]>,
  nowMs: number,
): {
  readonly spiffeId: string;
  readonly certificatePem: string;
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
} {
  const [leaf, ...others] = chainDer.map((der) => new X509Certificate(der));
  const spiffeId = /^URI:(spiffe:\/\/[^,\s]+)$/.exec(leaf?.subjectAltName ?? "")?.[1];
  if (leaf === undefined || spiffeId === undefined) throw new Error("the certificate has not one SPIFFE ID");
  const roots = (bundles.get(trustDomainOf(spiffeId)) ?? []).map((der) => new X509Certificate(der));
  let subject = leaf;
  for (let hops = 0; hops <= others.length; hops++) {
    const current = subject;
    if (current.validToDate.getTime() <= nowMs) throw new Error(`a certificate of ${spiffeId} has expired`);
    const signedBy = (issuer: X509Certificate) => current.checkIssued(issuer) && current.verify(issuer.publicKey);
    if (roots.some(signedBy)) {
      const [notBeforeMs, notAfterMs] = [leaf.validFromDate.getTime(), leaf.validToDate.getTime()];
      return { spiffeId, certificatePem: leaf.toString(), notBeforeMs, notAfterMs };
    }
    const issuer = others.find((other) => other.ca && signedBy(other));
    if (issuer === undefined) break;
    subject = issuer;
  }
  throw new Error(`no root of ${trustDomainOf(spiffeId)} stands behind ${spiffeId}`);
}
