import assert from "node:assert/strict";
import { generateKeyPairSync } from "node:crypto";
import { test } from "node:test";
import { headersOfToken, readToken, signToken, tokenOfHeaders } from "./peer-token.ts";

const { privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
const claims = { subject: "spiffe://t/a", audience: "spiffe://t/b", expiresMs: 1_700_000_000_999 };

test("signToken() cuts the expiry to seconds and writes the audience as an array", () => {
  const { token, expiresMs } = signToken(privateKey, claims);
  assert.equal(expiresMs, 1_700_000_000_000);
  assert.deepEqual(readToken(token), { sub: "spiffe://t/a", aud: ["spiffe://t/b"], exp: 1_700_000_000 });
});

test("signToken() leaves the audience out when the peer is unknown", () => {
  assert.deepEqual(readToken(signToken(privateKey, { ...claims, audience: undefined }).token).aud, []);
});

test("tokenOfHeaders() reads back what headersOfToken() wrote, and nothing that came twice", () => {
  const token = signToken(privateKey, claims);
  const headers = Object.entries(headersOfToken(token));
  assert.deepEqual(tokenOfHeaders(new Map(headers.map(([key, value]) => [key, [value]]))), token);
  assert.equal(tokenOfHeaders(new Map(headers.map(([key, value]) => [key, [value, value]]))), undefined);
  assert.equal(tokenOfHeaders(new Map()), undefined);
});
