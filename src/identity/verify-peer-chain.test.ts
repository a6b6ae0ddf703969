import assert from "node:assert/strict";
import { generateKeyPairSync } from "node:crypto";
import { test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { makeOddCertificate } from "../../sandbox/identity/odd-certificate.ts";
import { createTestCa, type TestCa } from "../../sandbox/identity/x509.ts";
import { X509SVIDResponseSchema } from "../gen/workload_pb.ts";
import { readCertificate, readCertificates } from "./certificate.ts";
import { IdentityError } from "./error.ts";
import { readSvid, readX509Context } from "./read-svid.ts";
import { verifyPeerChain } from "./verify-peer-chain.ts";

const NOW_MS = Date.now();
const HOUR_MS = 3_600_000;
const home = createTestCa("home.example");
const abroad = createTestCa("abroad.example");
const impostor = createTestCa("home.example");
const bundles = new Map([bundle(home), bundle(abroad)]);
const spiffeId = "spiffe://home.example/nsmgr";

function bundle(ca: TestCa) {
  return [ca.trustDomain, [readCertificate(ca.rootDer)]] as const;
}

const trusted = [
  { says: "issued by the root", chain: home.issue({ spiffeId }).chainDer },
  { says: "issued by an intermediate", chain: home.intermediate().issue({ spiffeId }).chainDer },
  { says: "issued below two intermediates", chain: home.intermediate().intermediate().issue({ spiffeId }).chainDer },
  { says: "whose intermediates come in another order", chain: shuffled() },
  { says: "that brings the root along", chain: [...home.issue({ spiffeId }).chainDer, home.rootDer] },
];
for (const { says, chain } of trusted) {
  test(`verifyPeerChain() trusts a leaf ${says}`, () => {
    assert.equal(verifyPeerChain(chain, bundles, NOW_MS).id, spiffeId);
  });
}

test("verifyPeerChain() trusts a peer of a federated domain by that domain's bundle alone", () => {
  const guest = abroad.issue({ spiffeId: "spiffe://abroad.example/nsc" });
  assert.equal(verifyPeerChain(guest.chainDer, bundles, NOW_MS).id, "spiffe://abroad.example/nsc");
  const liar = abroad.issue({ spiffeId });
  assert.throws(() => verifyPeerChain(liar.chainDer, bundles, NOW_MS), /leads to no authority/);
});

const untrusted: readonly (readonly [string, readonly Buffer[], RegExp])[] = [
  ["no certificate", [], /sent no certificate/],
  ["eleven certificates", Array(11).fill(home.rootDer), /sent 11 certificates/],
  ["garbage", [Buffer.from("hello")], /no X.509 in DER/],
  ["no URI name", home.issue({ spiffeId, uris: [] }).chainDer, /has no URI name/],
  ["two URI names", home.issue({ spiffeId, uris: [spiffeId, spiffeId] }).chainDer, /more than one URI name/],
  ["a URI that is no SPIFFE ID", home.issue({ spiffeId: "https://home.example/a" }).chainDer, /as a SPIFFE ID/],
  ["a comma in its URI", home.issue({ spiffeId: `${spiffeId}, URI:${spiffeId}` }).chainDer, /as a SPIFFE ID/],
  ["the CA flag", home.issue({ spiffeId, isCa: true }).chainDer, /CA flag/],
  ["keyCertSign", home.issue({ spiffeId, keyUsage: ["digitalSignature", "keyCertSign"] }).chainDer, /keyCertSign/],
  ["cRLSign", home.issue({ spiffeId, keyUsage: ["cRLSign"] }).chainDer, /cRLSign/],
  ["a past", home.issue({ spiffeId, notAfterMs: NOW_MS - 5000 }).chainDer, /certificate expired at/],
  ["a future", home.issue({ spiffeId, notBeforeMs: NOW_MS + HOUR_MS }).chainDer, /valid only from/],
  [
    "a domain unknown here",
    createTestCa("moon.example").issue({ spiffeId: "spiffe://moon.example/a" }).chainDer,
    /no trust bundle/,
  ],
  ["an authority of the same name", impostor.issue({ spiffeId }).chainDer, /leads to no authority/],
  [
    "an authority it brings itself",
    [...impostor.issue({ spiffeId }).chainDer, impostor.rootDer],
    /leads to no authority/,
  ],
  ["its intermediate left out", home.intermediate().issue({ spiffeId }).chainDer.slice(0, 1), /leads to no authority/],
];
for (const [says, chain, reason] of untrusted) {
  test(`verifyPeerChain() refuses a leaf with ${says}`, () => {
    assert.throws(
      () => verifyPeerChain(chain, bundles, NOW_MS),
      (error) => error instanceof IdentityError && error.fault.kind === "untrusted-peer" && reason.test(error.message),
    );
  });
}

test("verifyPeerChain() refuses when the authority in the bundle has expired", () => {
  const { chainDer } = home.issue({ spiffeId, notAfterMs: NOW_MS + 100 * HOUR_MS });
  assert.throws(
    () => verifyPeerChain(chainDer, bundles, NOW_MS + 50 * HOUR_MS),
    /authority in the trust bundle expired/,
  );
});

test("verifyPeerChain() survives every cut and any flipped byte of a leaf", () => {
  const [leaf] = home.issue({ spiffeId }).chainDer;
  assert.ok(leaf !== undefined);
  const check = (der: Buffer) =>
    assert.throws(() => verifyPeerChain([der], bundles, NOW_MS), { name: "IdentityError" }, der.toString("hex"));
  for (let length = 0; length < leaf.length; length += 3) check(leaf.subarray(0, length));
  for (let at = 0; at < leaf.length; at += 3) {
    const flipped = Buffer.from(leaf);
    flipped.writeUInt8(flipped.readUInt8(at) ^ 0x41, at);
    check(flipped);
  }
});

test("verifyPeerChain() refuses an authority whose key is no point of its curve", () => {
  const { publicKey, privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const publicKeyDer = publicKey.export({ type: "spki", format: "der" });
  publicKeyDer.writeUInt8(publicKeyDer.readUInt8(publicKeyDer.length - 1) ^ 1, publicKeyDer.length - 1);
  const middle = makeOddCertificate({ subject: "middle", key: { publicKey, privateKey }, publicKeyDer });
  const leaf = makeOddCertificate({ subject: "leaf", issuer: middle, isCa: false, keyUsage: 1, uris: [spiffeId] });
  assert.throws(() => verifyPeerChain([leaf.der, middle.der], bundles, NOW_MS), {
    name: "IdentityError",
    message: /leads to no authority/,
  });
});

test("readCertificates() takes certificates that follow each other", () => {
  const { certChainDer, chainDer } = home.intermediate().issue({ spiffeId });
  assert.deepEqual(
    readCertificates(certChainDer).map((certificate) => certificate.x509.raw),
    chainDer,
  );
  assert.throws(() => readCertificates(Buffer.concat([certChainDer, Buffer.of(0x30)])), { name: "IdentityError" });
});

test("readX509Context() takes the first SVID and the bundles of all domains", () => {
  const mine = home.issue({ spiffeId, notAfterMs: Date.UTC(2030, 0, 1) });
  const other = home.issue({ spiffeId: "spiffe://home.example/other" });
  const context = readX509Context(
    create(X509SVIDResponseSchema, {
      svids: [mine, other].map((issued) => ({
        spiffeId: "spiffe://home.example/the-certificate-says-it",
        x509Svid: issued.certChainDer,
        x509SvidKey: issued.keyDer,
        bundle: home.rootDer,
        hint: "ignored",
      })),
      federatedBundles: {
        "spiffe://abroad.example": abroad.rootDer,
        "spiffe://broken.example": Buffer.of(1),
        "spiffe://empty.example": Buffer.alloc(0),
      },
    }),
  );
  assert.equal(context.svid.id, spiffeId);
  assert.equal(context.svid.notAfterMs, Date.UTC(2030, 0, 1));
  assert.equal(context.svid.certChainPem, mine.certPem);
  assert.deepEqual([...context.bundles.keys()], ["home.example", "abroad.example"]);
  assert.deepEqual(
    context.brokenBundles.map((broken) => broken.trustDomain),
    ["spiffe://broken.example", "spiffe://empty.example"],
  );
});

test("readX509Context() trusts the domain of another SVID of ours by the bundle that came with it", () => {
  const svids = [home.issue({ spiffeId }), abroad.issue({ spiffeId: "spiffe://abroad.example/us" })].map(
    (issued, at) => ({
      spiffeId: at === 0 ? spiffeId : "spiffe://abroad.example/us",
      x509Svid: issued.certChainDer,
      x509SvidKey: issued.keyDer,
      bundle: [home, abroad][at]?.rootDer ?? Buffer.alloc(0),
    }),
  );
  const { bundles: read } = readX509Context(create(X509SVIDResponseSchema, { svids }));
  const peer = abroad.issue({ spiffeId: "spiffe://abroad.example/nsc" });
  assert.equal(verifyPeerChain(peer.chainDer, read, NOW_MS).id, "spiffe://abroad.example/nsc");
});

test("readX509Context() takes the authorities of our own domain from our own SVID alone", () => {
  const [mine, other] = [home.issue({ spiffeId }), home.issue({ spiffeId: "spiffe://home.example/other" })];
  const parts = ({ certChainDer, keyDer }: typeof mine) => ({ spiffeId, x509Svid: certChainDer, x509SvidKey: keyDer });
  const { bundles: read } = readX509Context(
    create(X509SVIDResponseSchema, {
      svids: [
        { ...parts(mine), bundle: home.rootDer },
        { ...parts(other), bundle: impostor.rootDer },
      ],
      federatedBundles: { "spiffe://home.example": impostor.rootDer },
    }),
  );
  const liar = impostor.issue({ spiffeId });
  assert.equal(verifyPeerChain(mine.chainDer, read, NOW_MS).id, spiffeId);
  assert.throws(() => verifyPeerChain(liar.chainDer, read, NOW_MS), { name: "IdentityError" });
});

const foreign = home.issue({ spiffeId });
const unusable: readonly (readonly [string, Parameters<TestCa["issue"]>[0], string, RegExp])[] = [
  ["a whole trust domain", { spiffeId: "spiffe://home.example" }, "bad-svid", /names a whole trust domain/],
  ["no digitalSignature", { spiffeId, keyUsage: ["keyAgreement"] }, "bad-svid", /lacks digitalSignature/],
  ["the CA flag", { spiffeId, isCa: true }, "bad-svid", /CA flag/],
  ["a P-384 key", { spiffeId, keyKind: "p384" }, "unusable-key", /EC secp384r1.*ES256.*ec-p256/],
  ["an RSA key", { spiffeId, keyKind: "rsa" }, "unusable-key", /rsa.*workload_x509_svid_key_type/],
];
for (const [says, options, kind, reason] of unusable) {
  test(`readSvid() refuses an SVID of our own with ${says}`, () => {
    const { certChainDer, keyDer } = home.issue(options);
    assert.throws(
      () => readSvid(certChainDer, keyDer),
      (error) => error instanceof IdentityError && error.fault.kind === kind && reason.test(error.message),
    );
  });
}

test("readSvid() refuses a chain of our own in which one of two intermediates may not sign", () => {
  const { certChainDer, certPem, keyDer } = home.intermediate().issue({ spiffeId });
  const { id, certChainPem } = readSvid(certChainDer, keyDer);
  assert.deepEqual([id, certChainPem], [spiffeId, certPem], "what peers are shown");
  const [leaf = Buffer.alloc(0)] = foreign.chainDer;
  assert.throws(() => readSvid(Buffer.concat([certChainDer, leaf]), keyDer), /one of its intermediate certificates/);
});

test("readSvid() refuses a key that is not the certificate's, and garbage", () => {
  const { certChainDer, keyDer } = home.issue({ spiffeId });
  assert.throws(() => readSvid(certChainDer, foreign.keyDer), /key does not belong/);
  assert.throws(() => readSvid(certChainDer, Buffer.of(1, 2)), /Cannot use the X.509 SVID/);
  assert.throws(() => readSvid(Buffer.alloc(0), keyDer), /holds no certificate/);
  assert.throws(() => readX509Context(create(X509SVIDResponseSchema, {})), /the answer holds none/);
});

function shuffled(): readonly Buffer[] {
  const [leaf, ...rest] = home.intermediate().intermediate().issue({ spiffeId }).chainDer;
  assert.ok(leaf !== undefined);
  return [leaf, ...rest.toReversed()];
}
