import { X509Certificate } from "node:crypto";
import type { IssueOptions, TestCa } from "../../sandbox/identity/x509.ts";
import type { PeerIdentity, TlsIdentity } from "../../src/rpc/index.ts";

/** A TLS identity without a Workload API: for tests of what is below or beside the identity module. */
export interface TestIdentity extends TlsIdentity {
  /** Takes a new certificate, as after a rotation. */
  rotate(options?: Partial<IssueOptions>): void;
  /** How many rotation listeners there are: a leak shows here. */
  readonly listenerCount: number;
}

/** Trusts every certificate that a root of `trusts` issued directly, whatever else it says. */
export function testIdentity(ca: TestCa, spiffeId: string, trusts: readonly TestCa[] = [ca]): TestIdentity {
  const listeners = new Set<() => void>();
  let issued = ca.issue({ spiffeId });
  return {
    credentials: () => ({ certChainPem: issued.certPem, keyPem: issued.keyPem }),
    verifyPeer: (chainDer) => verify(chainDer, trusts),
    onRotate(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    rotate(options = {}) {
      issued = ca.issue({ spiffeId, ...options });
      for (const listener of [...listeners]) listener();
    },
    get listenerCount() {
      return listeners.size;
    },
  };
}

function verify(chainDer: readonly Buffer[], trusts: readonly TestCa[]): PeerIdentity {
  const [leafDer] = chainDer;
  if (leafDer === undefined) throw new Error("the peer sent no certificate");
  const leaf = new X509Certificate(leafDer);
  const roots = trusts.map(({ rootDer }) => new X509Certificate(rootDer));
  if (!roots.some((root) => leaf.checkIssued(root) && leaf.verify(root.publicKey))) {
    throw new Error("the peer's certificate was issued by no authority that we trust");
  }
  return {
    spiffeId: leaf.subjectAltName?.replace(/^URI:/, "") ?? "",
    certificatePem: leaf.toString(),
    notBeforeMs: leaf.validFromDate.getTime(),
    notAfterMs: leaf.validToDate.getTime(),
  };
}
