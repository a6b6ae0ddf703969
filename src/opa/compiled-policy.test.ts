import assert from "node:assert/strict";
import { copyFileSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { fileURLToPath } from "node:url";
import { createTestCa } from "../../sandbox/identity/x509.ts";
import { checkRegistration, IdentityError, type Policy, PolicyError } from "../identity/index.ts";
import { issueToken } from "../identity/jwt.ts";
import { readSvid } from "../identity/read-svid.ts";
import { builtinsAt } from "./builtins.ts";
import { loadCompiledPolicy } from "./compiled-policy.ts";
import { registryPolicies } from "./registry-policies.ts";

const FIXTURE = fileURLToPath(new URL("testing/compiled.wasm", import.meta.url));
const nowMs = Date.now();
const ca = createTestCa("example.org");
const [forwarder, nsmgr, other] = ["forwarder", "nsmgr", "other"].map(member) as [Member, Member, Member];

type Member = ReturnType<typeof member>;

function member(name: string) {
  const id = `spiffe://example.org/${name}`;
  const { certChainDer, certPem: certificatePem, keyDer } = ca.issue({ spiffeId: id });
  const svid = readSvid(certChainDer, keyDer);
  const tokenFor = (audience: string) => issueToken(svid, { audience, lifetimeMs: 60_000, nowMs }).token;
  return { id, peer: { spiffeId: id, certificatePem }, tokenFor };
}

function answer(changes: { name?: string; peer?: Member["peer"]; token?: string; nowMs?: number; id?: string } = {}) {
  const segments = [
    { token: forwarder.tokenFor(nsmgr.id) },
    { token: changes.token ?? nsmgr.tokenFor("spiffe://example.org/registry") },
  ];
  const { name = "forwarder-1", id = forwarder.id } = changes;
  const resource = { name, id, pathIds: new Map([["forwarder-1", [forwarder.id, nsmgr.id]]]) };
  return { index: 0, segments, peer: changes.peer ?? nsmgr.peer, nowMs: changes.nowMs ?? nowMs, resource };
}

/** As shipped: only what never ends is for certain over its limit, and on a busy machine anything may be. */
const shipped = await loadCompiledPolicy(FIXTURE);
const policy = await loadCompiledPolicy(FIXTURE, { limitMs: 60_000 });

test("a compiled policy reads the original's input document, and calls what NSM's own policies call", () => {
  checkRegistration([policy], answer());
  checkRegistration([policy], answer());
});

const refused = [
  ["a name that it does not like", { name: "other" }, /nsm\/valid is false/],
  ["another client's answer", { id: other.id }, /nsm\/valid is false/],
  ["a token that another has signed", { peer: other.peer }, /nsm\/valid is false/],
  ["a token that is none", { token: "a.b.c" }, /nsm\/valid is false/],
  ["a token that is over", { nowMs: nowMs + 61_000 }, /nsm\/valid is false/],
  ["what it gives no boolean for", { name: "odd" }, /nsm\/valid is no boolean/],
  ["what takes it too long", { name: "slow" }, /it took longer than 500 ms/],
  ["what takes it too much memory", { name: "large" }, /could not be evaluated: (?!it took)/],
] as const;
for (const [says, changes, wants] of refused) {
  test(`a compiled policy refuses ${says}, and continues`, () => {
    assert.throws(
      () => checkRegistration([says === "what takes it too long" ? shipped : policy], answer(changes)),
      (error) => error instanceof PolicyError && error.policy === FIXTURE && wants.test(error.message),
    );
    checkRegistration([policy], answer());
  });
}

test("loadCompiledPolicy() names what a policy calls and is not here", async () => {
  const fewer: typeof builtinsAt = (at) => {
    const { "time.now_ns": _, ...rest } = builtinsAt(at);
    return rest;
  };
  await assert.rejects(
    loadCompiledPolicy(FIXTURE, { builtins: fewer }),
    /it calls time\.now_ns, which is not here.*io\.jwt\.decode,/,
  );
});

function folder(t: TestContext): (name: string, text?: string | Uint8Array) => string {
  const made = mkdtempSync(join(tmpdir(), "opa-"));
  t.after(() => rmSync(made, { recursive: true, force: true }));
  copyFileSync(FIXTURE, join(made, "mine.wasm"));
  return (name, text) => {
    if (text !== undefined) writeFileSync(join(made, name), text);
    return join(made, name);
  };
}

const namesOf = (policies: readonly Policy[]) => policies.map(({ name }) => name.split("/").at(-1));

test("registryPolicies() takes compiled policies by path and by pattern, beside the built-in ones", async (t) => {
  const at = folder(t);
  for (const mask of [at("mine.wasm"), at(".*.wasm")]) {
    const { policies, warnings } = await registryPolicies(["etc/nsm/opa/client/.*.rego", mask]);
    assert.deepEqual([namesOf(policies), warnings], [["next_token_signed.rego", "mine.wasm"], []]);
  }
  const { policies, warnings } = await registryPolicies([at("gone/.*.wasm"), "/gone.wasm", at("mine.wasm/a.wasm")]);
  assert.deepEqual([policies.length, warnings.length], [0, 4]);
});

test("registryPolicies() says of a policy that is not compiled how to compile it", async (t) => {
  const at = folder(t);
  const mask = at("mine.rego", "# mine\npackage my.rules\n");
  await assert.rejects(
    registryPolicies([mask]),
    (error) =>
      error instanceof IdentityError && error.message.includes(`opa build -t wasm -e my/rules/valid ${mask} &&`),
  );
});

test("registryPolicies() says what is wrong with a file that is no compiled policy", async (t) => {
  const at = folder(t);
  const empty = Uint8Array.of(0, 0x61, 0x73, 0x6d, 1, 0, 0, 0);
  await assert.rejects(
    registryPolicies([at("a.wasm", "text")]),
    /a\.wasm: it is no policy that opa build made .*magic/,
  );
  await assert.rejects(registryPolicies([at("b.wasm", empty)]), /b\.wasm: it is no policy that opa build made/);
});
