import assert from "node:assert/strict";
import { test } from "node:test";
import { IdentityError } from "./error.ts";
import { hasPath, parseSpiffeId, trustDomainOf } from "./spiffe-id.ts";

const good = [
  { text: "spiffe://example.org", domain: "example.org", path: false },
  { text: "spiffe://example.org/ns/nsm-system/pod/nsmgr-x7k2p", domain: "example.org", path: true },
  { text: "spiffe://a_b-c.1/Upper.Case_-", domain: "a_b-c.1", path: true },
  { text: "spiffe://a/...", domain: "a", path: true },
  { text: `spiffe://d/${"a".repeat(2037)}`, domain: "d", path: true }, // 2048 characters
  { text: `spiffe://${"d".repeat(255)}/a`, domain: "d".repeat(255), path: true },
];
for (const row of good) {
  test(`parseSpiffeId() takes ${row.text.slice(0, 60)}`, () => {
    const id = parseSpiffeId(row.text);
    assert.deepEqual([trustDomainOf(id), hasPath(id)], [row.domain, row.path]);
  });
}

const bad = [
  "",
  "example.org/a",
  "SPIFFE://example.org/a",
  "spiffe:/example.org/a",
  "spiffe://",
  "spiffe:///a",
  "spiffe://Example.org/a",
  "spiffe://example.org:8080/a",
  "spiffe://user@example.org/a",
  "spiffe://example.org/",
  "spiffe://example.org/a/",
  "spiffe://example.org//a",
  "spiffe://example.org/./a",
  "spiffe://example.org/a/..",
  "spiffe://example.org/a?b=c",
  "spiffe://example.org/a#b",
  "spiffe://example.org/a%20b",
  "spiffe://example.org/a\n",
  "spiffe://example.org\n",
  "spiffe://exämple.org/a",
  `spiffe://${"d".repeat(256)}/a`,
  `spiffe://d/${"a".repeat(2038)}`,
];
for (const text of bad) {
  test(`parseSpiffeId() refuses ${JSON.stringify(text).slice(0, 60)}`, () => {
    assert.throws(
      () => parseSpiffeId(text),
      (error) => error instanceof IdentityError && error.fault.kind === "bad-spiffe-id" && error.message.length < 400,
    );
  });
}
