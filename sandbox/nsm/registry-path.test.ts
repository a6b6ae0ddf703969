import assert from "node:assert/strict";
import { generateKeyPairSync } from "node:crypto";
import { test } from "node:test";
import { signToken } from "./peer-token.ts";
import { extendRegistryPath } from "./registry-path.ts";

const { privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
const tokenOf = (subject: string) => signToken(privateKey, { subject, audience: undefined, expiresMs: 2e12 }).token;
const hop = { callerToken: tokenOf("spiffe://t/f"), ownToken: tokenOf("spiffe://t/m") };
const both = [{ token: hop.callerToken }, { token: hop.ownToken }];

test("extendRegistryPath() makes both segments of an empty path and gives the caller's index back", () => {
  const { header, pathIds } = extendRegistryPath('{"Index":0,"PathSegments":null}', [], hop);
  assert.deepEqual(JSON.parse(header), { Index: 0, PathSegments: both });
  assert.deepEqual(pathIds, ["spiffe://t/f", "spiffe://t/m"]);
});

test("extendRegistryPath() renews the tokens of a path that it has seen before", () => {
  const old = JSON.stringify({ Index: 0, PathSegments: [{ token: "old" }, { token: "old" }, { token: "registry" }] });
  const { header } = extendRegistryPath(old, ["spiffe://t/f", "spiffe://t/m"], hop);
  assert.deepEqual(JSON.parse(header), { Index: 0, PathSegments: [...both, { token: "registry" }] });
});

for (const header of [
  "",
  "null",
  "[]",
  '{"Index":3,"PathSegments":[{"token":"x"}]}',
  '{"Index":-1,"PathSegments":null}',
]) {
  test(`extendRegistryPath() refuses ${header || "nothing"}`, () => {
    assert.throws(() => extendRegistryPath(header, [], hop), { code: "INVALID_ARGUMENT" });
  });
}
