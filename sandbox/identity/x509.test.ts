import assert from "node:assert/strict";
import { createPrivateKey, X509Certificate } from "node:crypto";
import { test } from "node:test";
import { createTestCa } from "./x509.ts";

test("createTestCa() issues leaves that OpenSSL verifies against the root", () => {
  const ca = createTestCa("example.org");
  const leaf = ca.issue({ spiffeId: "spiffe://example.org/a", notAfterMs: Date.UTC(2040, 0, 2, 3, 4, 5) });
  const parsed = new X509Certificate(leaf.certPem);
  const root = new X509Certificate(ca.rootDer);
  assert.equal(parsed.subjectAltName, "URI:spiffe://example.org/a");
  assert.equal(parsed.ca, false);
  assert.equal(parsed.validTo, "Jan  2 03:04:05 2040 GMT");
  assert.equal(parsed.checkIssued(root) && parsed.verify(root.publicKey), true);
  assert.equal(root.ca && root.checkIssued(root) && root.verify(root.publicKey), true);
  assert.equal(parsed.checkPrivateKey(createPrivateKey(leaf.keyPem)), true);
  assert.deepEqual(leaf.certChainDer, parsed.raw);
});

test("createTestCa() issues through an intermediate, and odd leaves on demand", () => {
  const ca = createTestCa("example.org");
  const middle = ca.intermediate();
  const [leaf, issuer] = middle
    .issue({ spiffeId: "", uris: ["spiffe://a/b", "spiffe://c/d"], isCa: true, keyUsage: ["keyCertSign"] })
    .chainDer.map((der) => new X509Certificate(der));
  assert.ok(leaf !== undefined && issuer !== undefined);
  assert.equal(leaf.checkIssued(issuer) && leaf.verify(issuer.publicKey), true);
  assert.equal(issuer.verify(new X509Certificate(ca.rootDer).publicKey), true);
  assert.deepEqual([leaf.ca, leaf.subjectAltName], [true, "URI:spiffe://a/b, URI:spiffe://c/d"]);
  const kinds = (["p384", "rsa"] as const).map(
    (keyKind) =>
      new X509Certificate(ca.issue({ spiffeId: "spiffe://a/b", keyKind }).certPem).publicKey.asymmetricKeyType,
  );
  assert.deepEqual(kinds, ["ec", "rsa"]);
});
