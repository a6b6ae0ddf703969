import assert from "node:assert/strict";
import { test } from "node:test";
import { resourceNameProblem, socketName } from "./resource-name.ts";

const names: readonly (readonly [string, RegExp | undefined])[] = [
  ["worker.domain/10G", undefined],
  ["a/b", undefined],
  [`${"a.".repeat(121)}aa/x`, undefined],
  [`${"a.".repeat(121)}aaa/x`, /no DNS name/],
  [`a/${"x".repeat(63)}`, undefined],
  [`a/${"x".repeat(64)}`, /no name/],
  ["10G", /one slash/],
  ["a/b/c", /one slash/],
  ["/b", /no DNS name/],
  ["a/", /no name/],
  ["Worker/10G", /no DNS name/],
  ["worker_1/10G", /no DNS name/],
  ["a/-b", /no name/],
  ["kubernetes.io/a", /keeps kubernetes.io/],
  ["x.kubernetes.io/a", /keeps kubernetes.io/],
  ["requests.a/b", /keeps "requests."/],
];
for (const [name, problem] of names) {
  test(`resourceNameProblem() ${problem === undefined ? "takes" : "refuses"} ${name.slice(0, 40)}`, () => {
    const found = resourceNameProblem(name);
    if (problem === undefined) assert.equal(found, undefined);
    else assert.match(String(found), problem);
  });
}

test("socketName() is stable, short, and another for every resource", () => {
  assert.equal(socketName("worker.domain/10G"), socketName("worker.domain/10G"));
  assert.match(socketName("worker.domain/10G"), /^nsm-sriov-worker\.domain_10G-[0-9a-f]{12}\.sock$/);
  assert.notEqual(socketName("a/b_c"), socketName("a/b.c"));
  assert.ok(socketName(`${"a.".repeat(121)}aa/${"x".repeat(63)}`).length <= 64);
});
