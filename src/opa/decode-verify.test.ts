import assert from "node:assert/strict";
import { createSecretKey, generateKeyPairSync, type KeyObject } from "node:crypto";
import { test } from "node:test";
import { exportJWK, type JWTPayload, SignJWT } from "jose";
import { builtinsAt } from "./builtins.ts";

const NOW = 1_700_000_000;
const ec = (namedCurve = "P-256") => generateKeyPairSync("ec", { namedCurve });
const [own, other] = [ec(), ec()];
const pemOf = (key: KeyObject) => String(key.export({ type: "spki", format: "pem" }));
const cert = pemOf(own.publicKey);
const call = (token: unknown, constraints: unknown) =>
  builtinsAt(NOW * 1000)["io.jwt.decode_verify"]?.(token, constraints);

interface Made {
  readonly alg?: string;
  readonly key?: KeyObject;
  readonly header?: Readonly<Record<string, unknown>>;
}
const made = (claims: JWTPayload, { alg = "ES256", key = own.privateKey, header = {} }: Made = {}) =>
  new SignJWT(claims).setProtectedHeader({ alg, ...header }).sign(key, { crit: { x: true } });

test("io.jwt.decode_verify gives header and claims of what is valid", async () => {
  const token = await made({ iss: "nsm", aud: "us", exp: NOW + 1, nbf: NOW, sub: "a" });
  assert.deepEqual(call(token, { cert, alg: "ES256", iss: "nsm", aud: "us" }), [
    true,
    { alg: "ES256" },
    { iss: "nsm", aud: "us", exp: NOW + 1, nbf: NOW, sub: "a" },
  ]);
});

const rows: readonly {
  readonly says: string;
  readonly claims?: JWTPayload;
  readonly made?: Made;
  readonly must: object;
  readonly valid: boolean;
}[] = [
  { says: "takes no other key", must: { cert: pemOf(other.publicKey) }, valid: false },
  { says: "takes no other algorithm", must: { cert, alg: "ES384" }, valid: false },
  { says: "takes no other issuer", claims: { iss: "a" }, must: { cert, iss: "b" }, valid: false },
  { says: "takes no token without issuer where one is wanted", must: { cert, iss: "b" }, valid: false },
  { says: "takes one of several audiences", claims: { aud: ["a", "b"] }, must: { cert, aud: "b" }, valid: true },
  { says: "takes no other audience", claims: { aud: "a" }, must: { cert, aud: "b" }, valid: false },
  { says: "takes no token for an audience where none is named", claims: { aud: "a" }, must: { cert }, valid: false },
  { says: "takes no token without audience where one is named", must: { cert, aud: "a" }, valid: false },
  { says: "takes no token in the second in which it ends", claims: { exp: NOW }, must: { cert }, valid: false },
  { says: "takes a token from its first second on", claims: { nbf: NOW }, must: { cert }, valid: true },
  { says: "takes no token before that", claims: { nbf: NOW + 1 }, must: { cert }, valid: false },
  { says: "goes by a time that is given", claims: { exp: NOW }, must: { cert, time: (NOW - 1) * 1e9 }, valid: true },
  { says: "takes no critical header", made: { header: { crit: ["x"], x: 1 } }, must: { cert }, valid: false },
  { says: "takes the name of a key beside a certificate", made: { header: { kid: "x" } }, must: { cert }, valid: true },
];
for (const { says, claims = {}, made: how, must, valid } of rows) {
  test(`io.jwt.decode_verify ${says}`, async () => {
    const verdict = call(await made(claims, how), must) as readonly unknown[];
    assert.equal(verdict[0], valid);
    assert.deepEqual(verdict.slice(1).length, 2);
    if (!valid) assert.deepEqual(verdict, [false, {}, {}]);
  });
}

test("io.jwt.decode_verify goes by the key that the token names, and by no key of another algorithm", async () => {
  const jwk = async (key: KeyObject, more: object) => ({ ...(await exportJWK(key)), ...more });
  const set = async (...keys: object[]) => ({ cert: JSON.stringify({ keys: await Promise.all(keys) }) });
  const token = await made({}, { header: { kid: "one" } });
  const isValid = async (must: object) => (call(token, must) as readonly unknown[])[0];
  assert.equal(
    await isValid(await set(jwk(other.publicKey, { kid: "two" }), jwk(own.publicKey, { kid: "one" }))),
    true,
  );
  assert.equal(await isValid(await set(jwk(other.publicKey, { kid: "one" }), jwk(own.publicKey, {}))), false);
  assert.equal(await isValid(await set(jwk(other.publicKey, {}), jwk(own.publicKey, { alg: "ES256" }))), true);
  assert.equal(await isValid(await set(jwk(own.publicKey, { alg: "ES384" }))), false);
});

test("io.jwt.decode_verify knows EdDSA and secrets, and takes no public key for a secret", async () => {
  const ed = generateKeyPairSync("ed25519");
  const isValid = (token: string, must: object) => (call(token, must) as readonly unknown[])[0];
  const token = await made({}, { alg: "EdDSA", key: ed.privateKey });
  assert.equal(isValid(token, { cert: pemOf(ed.publicKey) }), true);
  const secret = "0123456789abcdef0123456789abcdef";
  const hmac = await made({}, { alg: "HS256", key: createSecretKey(Buffer.from(secret)) });
  assert.deepEqual([isValid(hmac, { secret }), isValid(hmac, { secret: "another" })], [true, false]);
  const confused = await made({}, { alg: "HS256", key: createSecretKey(Buffer.from(cert)) });
  assert.equal(isValid(confused, { cert }), false);
});

test("io.jwt.decode_verify is undefined for what OPA calls an error", async () => {
  const token = await made({});
  const bad: readonly (readonly [unknown, unknown])[] = [
    ["a.b", { cert }],
    [7, { cert }],
    [token, {}],
    [token, undefined],
    [token, { cert, secret: "s" }],
    [token, { cert: "no key" }],
    [token, { cert, time: "now" }],
    [token, { cert, kid: "unknown constraint" }],
    [await made({ exp: "soon" } as unknown as JWTPayload), { cert }],
  ];
  for (const [given, must] of bad) assert.equal(call(given, must), undefined, JSON.stringify(must));
});
