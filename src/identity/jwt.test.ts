import assert from "node:assert/strict";
import { createPrivateKey, generateKeyPairSync, sign, X509Certificate } from "node:crypto";
import { test } from "node:test";
import { jwtVerify, SignJWT } from "jose";
import { createTestCa } from "../../sandbox/identity/x509.ts";
import { IdentityError } from "./error.ts";
import { decodeToken, isSignedBy, issueToken, LONGEST_TOKEN_BYTES, splitToken } from "./jwt.ts";
import { readSvid } from "./read-svid.ts";

const NOW_MS = Date.now();
const ca = createTestCa("example.org");
const issued = ca.issue({ spiffeId: "spiffe://example.org/forwarder", notAfterMs: NOW_MS + 3_600_000 });
const svid = readSvid(issued.certChainDer, issued.keyDer);
const publicKey = new X509Certificate(issued.certPem).publicKey;

function isKind(kind: string) {
  return (error: unknown) => error instanceof IdentityError && error.fault.kind === kind;
}

test("issueToken() makes tokens that another JWT library verifies", async () => {
  const { token, expiresMs } = issueToken(svid, {
    audience: "spiffe://example.org/nsmgr",
    lifetimeMs: 600_000,
    nowMs: NOW_MS,
  });
  const { payload, protectedHeader } = await jwtVerify(token, publicKey, { algorithms: ["ES256"] });
  assert.deepEqual(protectedHeader, { alg: "ES256", typ: "JWT" });
  assert.deepEqual(payload, {
    sub: "spiffe://example.org/forwarder",
    aud: ["spiffe://example.org/nsmgr"],
    exp: Math.floor((NOW_MS + 600_000) / 1000),
  });
  assert.equal(expiresMs, (payload.exp ?? 0) * 1000);
});

test("issueToken() names no audience when the peer is not known", () => {
  const { token } = issueToken(svid, { lifetimeMs: 600_000, nowMs: NOW_MS });
  assert.deepEqual(Object.keys(splitToken(token).claims), ["sub", "exp"]);
  assert.deepEqual(decodeToken(token).aud, []);
});

const limits = [
  { says: "its lifetime", options: { lifetimeMs: 60_000 }, leftMs: 60_000 },
  { says: "our certificate", options: { lifetimeMs: 86_400_000 }, leftMs: 3_600_000 },
  {
    says: "the peer's certificate",
    options: { lifetimeMs: 86_400_000, peerNotAfterMs: NOW_MS + 90_000 },
    leftMs: 90_000,
  },
];
for (const { says, options, leftMs } of limits) {
  test(`issueToken() ends a token with ${says}, in claim and answer alike`, () => {
    const { token, expiresMs } = issueToken(svid, { ...options, nowMs: NOW_MS });
    assert.equal(decodeToken(token).expMs, expiresMs);
    assert.ok(expiresMs <= NOW_MS + leftMs && expiresMs > NOW_MS + leftMs - 2000);
  });
}

test("issueToken() says whose certificate leaves no time", () => {
  const late = { lifetimeMs: 60_000, nowMs: NOW_MS + 3_600_000 };
  assert.throws(() => issueToken(svid, late), /our own SVID spiffe:\/\/example.org\/forwarder expired at/);
  const dead = { audience: "spiffe://example.org/nsc", lifetimeMs: 60_000, nowMs: NOW_MS, peerNotAfterMs: NOW_MS - 1 };
  assert.throws(() => issueToken(svid, dead), /the certificate of spiffe:\/\/example.org\/nsc expired at/);
});

test("issueToken() makes no token that ends with the moment it is made in", () => {
  const nowMs = Math.floor(NOW_MS / 1000) * 1000;
  assert.throws(
    () => issueToken({ ...svid, notAfterMs: nowMs + 999 }, { lifetimeMs: 60_000, nowMs }),
    isKind("expired"),
  );
  const last = issueToken({ ...svid, notAfterMs: nowMs + 1000 }, { lifetimeMs: 60_000, nowMs });
  assert.equal(last.expiresMs, nowMs + 1000);
});

test("splitToken() reads the longest token, and none of one character more", () => {
  const longest = `${head}.${body}.`.padEnd(LONGEST_TOKEN_BYTES, "A");
  assert.equal(splitToken(longest).claims["sub"], "s");
  assert.throws(() => splitToken(`${longest}A`), /8193 characters/);
});

test("isSignedBy() refuses a key on another curve though its signature holds and is as long", () => {
  const { privateKey, publicKey: koblitz } = generateKeyPairSync("ec", { namedCurve: "secp256k1" });
  const signature = sign("sha256", Buffer.from(`${head}.${body}`), { key: privateKey, dsaEncoding: "ieee-p1363" });
  assert.equal(isSignedBy(splitToken(`${head}.${body}.${signature.toString("base64url")}`), koblitz), false);
});

test("decodeToken() reads tokens made by another JWT library", async () => {
  const key = createPrivateKey(issued.keyPem);
  const token = await new SignJWT({ aud: ["a", "b"], extra: { deep: [1] } })
    .setProtectedHeader({ alg: "ES256", typ: "JWT", kid: "k" })
    .setSubject("spiffe://example.org/x")
    .setExpirationTime(1_900_000_000.25)
    .sign(key);
  assert.deepEqual(decodeToken(token), { sub: "spiffe://example.org/x", aud: ["a", "b"], expMs: 1_900_000_000_250 });
  assert.equal(isSignedBy(splitToken(token), publicKey), true);
});

const part = (value: unknown) =>
  Buffer.from(typeof value === "string" ? value : JSON.stringify(value)).toString("base64url");
const head = part({ alg: "ES256", typ: "JWT" });
const claims = { sub: "s", exp: 1_900_000_000, aud: ["a"] };
const body = part(claims);
const corrupted = [
  { says: "nothing", token: "" },
  { says: "one part", token: head },
  { says: "two parts", token: `${head}.${body}` },
  { says: "four parts", token: `${head}.${body}.AAAA.AAAA` },
  { says: "padding", token: `${head}=.${body}.AAAA` },
  { says: "plain base64", token: `${head}.${body}.+/+/` },
  { says: "a space", token: `${head}. ${body}.AAAA` },
  { says: "a part of impossible length", token: `${head}.${body}.AAAAA` },
  { says: "a header that is no JSON", token: `${part("nope")}.${body}.AAAA` },
  { says: "a header that is an array", token: `${part([])}.${body}.AAAA` },
  { says: "claims that are null", token: `${head}.${part(null)}.AAAA` },
  {
    says: "claims that are no UTF-8",
    token: `${head}.${Buffer.from(body, "base64url").fill(0xff, 8, 9).toString("base64url")}.AAAA`,
  },
  { says: "no subject", token: `${head}.${part({ exp: 1 })}.AAAA` },
  { says: "an empty subject", token: `${head}.${part({ ...claims, sub: "" })}.AAAA` },
  { says: "a subject that is a number", token: `${head}.${part({ ...claims, sub: 1 })}.AAAA` },
  { says: "no time", token: `${head}.${part({ sub: "s" })}.AAAA` },
  { says: "a time that is a text", token: `${head}.${part({ ...claims, exp: "1900000000" })}.AAAA` },
  { says: "a time before 1970", token: `${head}.${part({ ...claims, exp: -1 })}.AAAA` },
  { says: "a time after the year 9999", token: `${head}.${part({ ...claims, exp: 1e300 })}.AAAA` },
  { says: "an audience that is a text", token: `${head}.${part({ ...claims, aud: "a" })}.AAAA` },
  { says: "an audience of numbers", token: `${head}.${part({ ...claims, aud: [1] })}.AAAA` },
  { says: "too many characters", token: `${head}.${part({ ...claims, pad: "x".repeat(LONGEST_TOKEN_BYTES) })}.AAAA` },
];
for (const { says, token } of corrupted) {
  test(`decodeToken() refuses a token with ${says}`, () => {
    assert.throws(() => decodeToken(token), isKind("bad-token"));
  });
}

test("isSignedBy() refuses another key, another algorithm and a changed byte", async () => {
  const { token } = issueToken(svid, { lifetimeMs: 60_000, nowMs: NOW_MS });
  const parts = splitToken(token);
  const foreign = new X509Certificate(ca.issue({ spiffeId: svid.id }).certPem).publicKey;
  const rsa = new X509Certificate(ca.issue({ spiffeId: svid.id, keyKind: "rsa" }).certPem).publicKey;
  const p384 = new X509Certificate(ca.issue({ spiffeId: svid.id, keyKind: "p384" }).certPem).publicKey;
  const changed = Buffer.from(parts.signature);
  changed.writeUInt8(changed.readUInt8(5) ^ 1, 5);
  const hs256 = await new SignJWT(claims).setProtectedHeader({ alg: "HS256" }).sign(Buffer.from(issued.certPem));
  assert.equal(isSignedBy(parts, publicKey), true);
  for (const key of [foreign, rsa, p384]) assert.equal(isSignedBy(parts, key), false);
  assert.equal(isSignedBy({ ...parts, signature: changed }, publicKey), false);
  assert.equal(isSignedBy({ ...parts, signature: Buffer.alloc(0) }, publicKey), false);
  assert.equal(isSignedBy({ ...parts, signed: `${head}.${body}` }, publicKey), false);
  assert.equal(isSignedBy({ ...parts, header: { alg: "none" } }, publicKey), false);
  assert.equal(isSignedBy(splitToken(hs256), publicKey), false);
});
