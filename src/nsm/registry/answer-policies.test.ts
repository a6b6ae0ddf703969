import assert from "node:assert/strict";
import { test } from "node:test";
import { PolicyError, selectPolicies } from "../../identity/index.ts";
import { paperToken, peerNamed } from "../testing/fakes.ts";
import { answerPolicies } from "./answer-policies.ts";

test("answerPolicies() lets a name stay with the client whose registration was accepted first", () => {
  const check = answerPolicies(selectPolicies(["etc/nsm/opa/registry/client_allowed.rego"]).policies);
  const answer = (client: string, name = "fwd") => {
    const tokens = [paperToken(client, "nsmgr", 5_000), "of the manager"];
    return { name, pathIds: [client, "nsmgr"], index: 0, tokens, peer: peerNamed("nsmgr"), nowMs: 0 };
  };
  check(answer("a"));
  check(answer("a"));
  check(answer("b", "another"));
  const isForeign = (error: unknown) => error instanceof PolicyError && error.fault.kind === "foreign-resource";
  assert.throws(() => check(answer("b")), isForeign);
  assert.throws(() => check({ ...answer("a"), tokens: ["unreadable"] }), isForeign);
  assert.throws(() => check({ ...answer("a"), tokens: [] }), isForeign);
  check(answer("a"));
});
