import assert from "node:assert/strict";
import { generateKeyPairSync, type KeyObject } from "node:crypto";
import { test } from "node:test";
import { exportJWK, SignJWT } from "jose";
import { builtinsAt } from "./builtins.ts";

const builtins = builtinsAt(1_700_000_000_000);
const call = (name: string, ...args: unknown[]) => builtins[name]?.(...args);
const keysOf = (alg: string) =>
  alg.startsWith("ES")
    ? generateKeyPairSync("ec", { namedCurve: { ES256: "P-256", ES384: "P-384", ES512: "P-521" }[alg] ?? "" })
    : generateKeyPairSync("rsa", { modulusLength: 2048 });
const signed = (alg: string, key: KeyObject) => new SignJWT({ sub: "a" }).setProtectedHeader({ alg }).sign(key);

for (const alg of ["ES256", "ES384", "ES512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512"]) {
  test(`io.jwt.verify_${alg.toLowerCase()} goes by a public key and by a set of keys`, async () => {
    const { privateKey, publicKey } = keysOf(alg);
    const token = await signed(alg, privateKey);
    const pem = publicKey.export({ type: "spki", format: "pem" });
    const jwks = JSON.stringify({ keys: [await exportJWK(keysOf(alg).publicKey), await exportJWK(publicKey)] });
    const name = `io.jwt.verify_${alg.toLowerCase()}`;
    const another = keysOf(alg).publicKey.export({ type: "spki", format: "pem" });
    assert.deepEqual(
      [pem, jwks, another].map((keys) => call(name, token, keys)),
      [true, true, false],
    );
    assert.deepEqual([call(name, "a.b", pem), call(name, token, "no key")], [undefined, undefined]);
  });
}

test("io.jwt.decode takes a token apart, and is undefined for what is none", async () => {
  const token = await signed("ES256", keysOf("ES256").privateKey);
  const [header, claims, signature] = call("io.jwt.decode", token) as [unknown, unknown, string];
  assert.deepEqual([header, claims], [{ alg: "ES256" }, { sub: "a" }]);
  assert.match(signature, /^[0-9a-f]{128}$/);
  assert.equal(call("io.jwt.decode", 7), undefined);
});

test("time.now_ns is the time of the evaluation", () => assert.equal(call("time.now_ns"), 1_700_000_000_000e6));
