import assert from "node:assert/strict";
import { generateKeyPairSync } from "node:crypto";
import { test } from "node:test";
import { makeOddCertificate, type OddContents } from "../../sandbox/identity/odd-certificate.ts";
import { KEY_USAGE, readCertificate } from "./certificate.ts";
import { verifyPeerChain } from "./verify-peer-chain.ts";

const NOW_MS = Date.UTC(2026, 5, 1);
const valid = { notBeforeMs: NOW_MS - 1000, notAfterMs: NOW_MS + 1000 };
const PEER = "spiffe://home.example/nsmgr";
const rsa = generateKeyPairSync("rsa", { modulusLength: 2048 });

/** Verifies a leaf below an intermediate below a root with an RSA key. */
function verifyWith(contents: { middle?: Partial<OddContents>; leaf?: Partial<OddContents> }): string {
  const root = makeOddCertificate({ ...valid, subject: "root", key: rsa });
  const middle = makeOddCertificate({ ...valid, subject: "middle", issuer: root, ...contents.middle });
  const workload = { subject: "leaf", isCa: false, keyUsage: KEY_USAGE.digitalSignature, uris: [PEER] };
  const leaf = makeOddCertificate({ ...valid, ...workload, issuer: middle, ...contents.leaf });
  const bundles = new Map([["home.example", [readCertificate(root.der)]]]);
  return verifyPeerChain([leaf.der, middle.der], bundles, NOW_MS).id;
}

const extension = (id: string, hex: string): Partial<OddContents> => ({
  extensions: [{ id, isCritical: false, value: Buffer.from(hex, "hex") }],
});
const POLICY = "06022a03"; // 1.2.3
const ANY_POLICY = "0604551d2000";

test("verifyPeerChain() refuses policyConstraints that are not critical too, and takes other extensions on policies", () => {
  for (const place of ["middle", "leaf"] as const) {
    const constrained = { [place]: extension("2.5.29.36", "3003800100") };
    assert.throws(() => verifyWith(constrained), /critical extensions unknown here: 2\.5\.29\.36/);
    assert.equal(verifyWith({ [place]: extension("2.5.29.32", `30063004${POLICY}`) }), PEER);
    assert.equal(verifyWith({ [place]: extension("2.5.29.33", `300a3008${POLICY}06022a04`) }), PEER);
    assert.equal(verifyWith({ [place]: extension("2.5.29.54", "020100") }), PEER);
  }
});

const malformed: readonly (readonly [says: string, id: string, hex: string])[] = [
  ["any policy mapped to another", "2.5.29.33", `300c300a${ANY_POLICY}${POLICY}`],
  ["a policy mapped to any", "2.5.29.33", `300c300a${POLICY}${ANY_POLICY}`],
  ["a mapping that is none", "2.5.29.33", "30020500"],
  ["a policy twice", "2.5.29.32", `300c3004${POLICY}3004${POLICY}`],
  ["a policy without a name", "2.5.29.32", "30023000"],
  ["policyConstraints that are no sequence", "2.5.29.36", "0500"],
  ["inhibitAnyPolicy that is no number", "2.5.29.54", "0500"],
  ["a purpose that is no identifier", "2.5.29.37", "30020500"],
  ["a distribution point that is none", "2.5.29.31", "30020500"],
  ["access to information that is none", "1.3.6.1.5.5.7.1.1", "30020500"],
];
for (const [says, id, hex] of malformed) {
  test(`verifyPeerChain() refuses ${says}`, () => {
    assert.throws(() => verifyWith({ middle: extension(id, hex) }), /Cannot read a certificate: /);
  });
}

const SHA_1 = "300906052b0e03021a0500";
const sha2 = (last: number) => `300d060960864801650304020${last}0500`;
const MASK_1 = "06092a864886f70d010108";
const field = (tag: string, hex: string) => `${tag}${(hex.length / 2).toString(16).padStart(2, "0")}${hex}`;
const pss = (hash: string, maskHash: string, salt: number, more = "") => {
  const mask = field("30", `${MASK_1}${maskHash}`);
  const fields = `${field("a0", hash)}${field("a1", mask)}${field("a2", `0201${salt.toString(16).padStart(2, "0")}`)}${more}`;
  return Buffer.from(field("30", fields), "hex");
};

test("verifyPeerChain() takes signatures with PSS and one hash of SHA-2 throughout", () => {
  const hashes = [
    ["sha256", 1, 32],
    ["sha384", 2, 48],
    ["sha512", 3, 64],
  ] as const;
  for (const [hash, last, bytes] of hashes)
    assert.equal(verifyWith({ middle: { hash, pssParameters: pss(sha2(last), sha2(last), bytes) } }), PEER);
});

const weak: readonly (readonly [says: string, Partial<OddContents>])[] = [
  ["SHA-1, which no parameters stand for", { hash: "sha1", pssParameters: Buffer.of(0x30, 0) }],
  ["SHA-1 by name", { hash: "sha1", pssParameters: pss(SHA_1, SHA_1, 20) }],
  ["a mask of SHA-1", { pssParameters: pss(sha2(1), SHA_1, 32) }],
  ["a short salt", { pssParameters: pss(sha2(1), sha2(1), 20) }],
  ["another trailer", { pssParameters: pss(sha2(1), sha2(1), 32, "a303020102") }],
  ["no parameters", { pssParameters: Buffer.of(5, 0) }],
];
for (const [says, contents] of weak) {
  test(`verifyPeerChain() refuses a signature with PSS and ${says}`, () => {
    assert.throws(
      () => verifyWith({ middle: contents }),
      /algorithm that is not taken \(1\.2\.840\.113549\.1\.1\.10 without/,
    );
  });
}
