import assert from "node:assert/strict";
import { test } from "node:test";
import { parseSpiffeIdPattern } from "./spiffe-id-pattern.ts";

const fitting = [
  ["spiffe://a.b/ns/nsm/pod/nsmgr-x7k2p", "spiffe://a.b/ns/nsm/pod/nsmgr-x7k2p"],
  ["spiffe://a.b/ns/nsm/pod/nsmgr-*", "spiffe://a.b/ns/nsm/pod/nsmgr-x7k2p"],
  ["spiffe://a.b/ns/nsm/pod/nsmgr-*", "spiffe://a.b/ns/nsm/pod/nsmgr-"],
  ["spiffe://a.b/ns/*/pod/*gr*x", "spiffe://a.b/ns/nsm/pod/nsmgr-a-x"],
  ["spiffe://a.b/**/nsmgr", "spiffe://a.b/nsmgr"],
  ["spiffe://a.b/**/nsmgr", "spiffe://a.b/x/nsmgr/y/nsmgr"],
  ["spiffe://a.b/x/**", "spiffe://a.b/x"],
  ["spiffe://a.b/x/**", "spiffe://a.b/x/y/z"],
  ["spiffe://a.b/**", "spiffe://a.b/anything/at/all"],
] as const;
for (const [pattern, id] of fitting) {
  test(`${pattern} matches ${id}`, () => assert.ok(parseSpiffeIdPattern(pattern).matches(id)));
}

const others = [
  ["spiffe://a.b/ns/nsm/pod/nsmgr", "spiffe://a.b/ns/nsm/pod/nsmgr-1"],
  ["spiffe://a.b/ns/nsm/pod/nsmgr", "spiffe://a.b/ns/nsm/pod"],
  ["spiffe://a.b/ns/*/nsmgr", "spiffe://a.b/ns/x/y/nsmgr"],
  ["spiffe://a.b/ns/*/nsmgr", "spiffe://a.b/ns/nsmgr"],
  ["spiffe://a.b/ns/nsmgr-*", "spiffe://a.b/ns/nsmgr-1/evil"],
  ["spiffe://a.b/ns/nsmgr-*", "spiffe://a.b.evil/ns/nsmgr-1"],
  ["spiffe://a.b/ns/nsmgr-*", "spiffe://a.b.ns/nsmgr-1"],
  ["spiffe://a.b/**", "spiffe://c.d/a.b"],
  ["spiffe://a.b/**/nsmgr", "spiffe://a.b/nsmgr/evil"],
  ["spiffe://a.b/ns/nsmgr.*", "spiffe://a.b/ns/nsmgr-1"],
] as const;
for (const [pattern, id] of others) {
  test(`${pattern} does not match ${id}`, () => assert.ok(!parseSpiffeIdPattern(pattern).matches(id)));
}

const bad = [
  ["nsmgr-*", /a path after the trust domain/],
  ["spiffe://a.b", /a path after the trust domain/],
  ["spiffe://*/ns/nsmgr", /a trust domain without a star/],
  ["spiffe://a.b/ns/nsmgr-**", /\*\* as a whole segment/],
  ["https://a.b/ns/nsmgr", /a SPIFFE ID with .* start with spiffe/],
  ["spiffe://A.b/ns", /trust domain has only/],
  ["spiffe://a.b/ns/", /empty segment/],
  ["spiffe://a.b/ns/../x", /dot segment/],
  ["spiffe://a.b/ns/nsmgr-?", /a path has only/],
  ["", /a path after the trust domain/],
] as const;
for (const [pattern, problem] of bad) {
  test(`${JSON.stringify(pattern)} is no pattern`, () => {
    assert.throws(
      () => parseSpiffeIdPattern(pattern),
      (error: Error) => error instanceof SyntaxError && problem.test(error.message),
    );
  });
}
