import assert from "node:assert/strict";
import { createPrivateKey } from "node:crypto";
import { test } from "node:test";
import { SignJWT } from "jose";
import { createTestCa, type TestCertificate } from "../../sandbox/identity/x509.ts";
import { checkPath, checkRegistration } from "./check-policies.ts";
import { IdentityError } from "./error.ts";
import { issueToken } from "./jwt.ts";
import type { PathCheck } from "./policy.ts";
import { isOfAnotherKey, PolicyError } from "./policy-error.ts";
import { readSvid } from "./read-svid.ts";
import { selectPolicies, serverPolicyMasks } from "./select-policies.ts";

const NOW_MS = Date.now();
const ca = createTestCa("example.org");
const [nsc, nsmgr, forwarder] = ["nsc", "nsmgr", "forwarder"].map(member) as [Member, Member, Member];
const registryMasks = ["etc/nsm/opa/common/.*.rego", "etc/nsm/opa/registry/.*.rego", "etc/nsm/opa/client/.*.rego"];
const { policies: server } = selectPolicies(serverPolicyMasks);
const { policies: registry } = selectPolicies(registryMasks);

interface Member {
  readonly id: string;
  readonly issued: TestCertificate;
  readonly peer: { readonly spiffeId: string; readonly certificatePem: string };
  tokenFor(audience: string | undefined, lifetimeMs?: number): string;
}

function member(name: string): Member {
  const id = `spiffe://example.org/${name}`;
  const issued = ca.issue({ spiffeId: id });
  const svid = readSvid(issued.certChainDer, issued.keyDer);
  const [certificatePem = ""] = issued.certPem.split(/(?<=-----END CERTIFICATE-----\n)/);
  const tokenFor = (audience: string | undefined, lifetimeMs = 60_000) =>
    issueToken(svid, { lifetimeMs, nowMs: NOW_MS, ...(audience === undefined ? {} : { audience }) }).token;
  return { id, issued, peer: { spiffeId: id, certificatePem }, tokenFor };
}

/** A token of jose's making, with claims that ours would not write. */
function signed(by: Member, claims: Record<string, unknown>): Promise<string> {
  const key = createPrivateKey(by.issued.keyPem);
  return new SignJWT(claims).setProtectedHeader({ alg: "ES256", typ: "JWT" }).sign(key);
}

/** client → nsmgr → forwarder, as the forwarder's policies see it. */
function goodPath(): { index: number; tokens: string[]; peer: PathCheck["peer"]; nowMs: number } {
  return {
    index: 2,
    tokens: [nsc.tokenFor(nsmgr.id), nsmgr.tokenFor(forwarder.id), forwarder.tokenFor(nsmgr.id)],
    peer: nsmgr.peer,
    nowMs: NOW_MS,
  };
}

type Path = ReturnType<typeof goodPath>;

function asCheck({ tokens, ...rest }: Path): PathCheck {
  return { ...rest, segments: tokens.map((token) => ({ token })) };
}

function refusedBy(policy: string, kind: string) {
  return (error: unknown) => {
    assert.ok(error instanceof PolicyError, String(error));
    assert.deepEqual([error.policy.split("/").at(-1), error.fault.kind], [policy, kind]);
    assert.doesNotMatch(error.message, /eyJ/); // no token in it
    return true;
  };
}

test("checkPath() passes a path of three, and does not read what is right of us", () => {
  const path = goodPath();
  checkPath(server, asCheck(path));
  checkPath(server, asCheck({ ...path, tokens: [...path.tokens, "old token of an endpoint"] }));
});

const rows: readonly (readonly [string, string, string, (path: Path) => Path | Promise<Path>])[] = [
  ["an empty token", "tokens_valid.rego", "no-token", (path) => with_(path, 0, "")],
  ["a token of two parts", "tokens_valid.rego", "no-token", (path) => with_(path, 1, "a.b")],
  ["our own token missing", "tokens_valid.rego", "no-token", (path) => with_(path, 2, "")],
  [
    "an expired first token",
    "tokens_expired.rego",
    "expired",
    async (path) => with_(path, 0, await signed(nsc, { sub: nsc.id, aud: [nsmgr.id], exp: Math.floor(NOW_MS / 1000) })),
  ],
  [
    "a token without time",
    "tokens_expired.rego",
    "expired",
    async (path) => with_(path, 1, await signed(nsmgr, { sub: nsmgr.id, aud: [forwarder.id] })),
  ],
  [
    "a time that is a text, greater than any number in Rego",
    "tokens_expired.rego",
    "expired",
    async (path) => with_(path, 1, await signed(nsmgr, { sub: nsmgr.id, aud: [forwarder.id], exp: "9" } as never)),
  ],
  [
    "a token for another peer",
    "tokens_chained.rego",
    "not-chained",
    (path) => with_(path, 0, nsc.tokenFor(forwarder.id)),
  ],
  [
    "a token without an audience",
    "tokens_chained.rego",
    "not-chained",
    (path) => with_(path, 1, nsmgr.tokenFor(undefined)),
  ],
  [
    "an audience that is a text",
    "tokens_chained.rego",
    "not-chained",
    async (path) => with_(path, 1, await signed(nsmgr, { sub: nsmgr.id, aud: forwarder.id, exp: soon() })),
  ],
  [
    "our token without subject",
    "tokens_chained.rego",
    "not-chained",
    async (path) => with_(path, 2, await signed(forwarder, { aud: [nsmgr.id], exp: soon() })),
  ],
  [
    "a caller's token signed by another",
    "prev_token_signed.rego",
    "bad-signature",
    async (path) => with_(path, 1, await signed(nsc, { sub: nsmgr.id, aud: [forwarder.id], exp: soon() })),
  ],
  [
    "a caller that shows another certificate",
    "prev_token_signed.rego",
    "bad-signature",
    (path) => ({ ...path, peer: nsc.peer }),
  ],
  ["no certificate", "prev_token_signed.rego", "no-certificate", (path) => ({ ...path, peer: undefined })],
  ["index 0", "prev_token_signed.rego", "no-caller", (path) => ({ ...path, index: 0 })],
];
for (const [says, policy, kind, corrupt] of rows) {
  test(`checkPath() refuses ${says}`, async () => {
    const corrupted = asCheck(await corrupt(goodPath()));
    assert.throws(() => checkPath(reorder(policy), corrupted), refusedBy(policy, kind));
  });
}

for (const sub of [nsc.id, undefined]) {
  test(`checkPath() refuses a caller that signs with its own key, and as its name ${sub}`, async () => {
    const stolen = await signed(nsmgr, { sub, aud: [forwarder.id], exp: soon() });
    const path = { ...goodPath(), index: 1, tokens: [stolen, forwarder.tokenFor(nsmgr.id)] };
    assert.throws(() => checkPath(server, asCheck(path)), refusedBy("prev_token_signed.rego", "wrong-subject"));
  });
}

test("checkPath() goes by the key of the certificate that the caller shows now, not of one that it showed before", () => {
  checkPath(server, asCheck(goodPath()));
  const renewed = member("nsmgr");
  const later = with_(goodPath(), 1, renewed.tokenFor(forwarder.id));
  checkPath(server, asCheck({ ...later, peer: renewed.peer }));
  const stale = asCheck({ ...goodPath(), peer: renewed.peer });
  assert.throws(() => checkPath(server, stale), refusedBy("prev_token_signed.rego", "bad-signature"));
});

test("isOfAnotherKey() is so of a token in the caller's own name alone, whose key is not the one that it has shown", async () => {
  const faultOf = (path: Path) => {
    try {
      checkPath(reorder("prev_token_signed.rego"), asCheck(path));
    } catch (error) {
      return error;
    }
    return undefined;
  };
  const renewed = with_(goodPath(), 1, member("nsmgr").tokenFor(forwarder.id));
  const another = with_(goodPath(), 1, nsc.tokenFor(forwarder.id));
  const stolen = with_(goodPath(), 1, await signed(nsmgr, { sub: nsc.id, aud: [forwarder.id], exp: soon() }));
  assert.deepEqual(
    [renewed, another, stolen, goodPath()].map((path) => isOfAnotherKey(faultOf(path))),
    [true, false, false, false],
  );
});

test("checkPath() takes a token with more than one audience", async () => {
  const many = await signed(nsmgr, { sub: nsmgr.id, aud: ["spiffe://example.org/x", forwarder.id], exp: soon() });
  checkPath(server, asCheck(with_(goodPath(), 1, many)));
});

test("checkPath() counts fractions of a second", async () => {
  const exp = Math.floor(NOW_MS / 1000) + 10;
  const token = await signed(nsmgr, { sub: nsmgr.id, aud: [forwarder.id], exp });
  const path = with_(goodPath(), 1, token);
  checkPath(server, asCheck({ ...path, nowMs: exp * 1000 - 1 }));
  assert.throws(
    () => checkPath(server, asCheck({ ...path, nowMs: exp * 1000 })),
    refusedBy("tokens_expired.rego", "expired"),
  );
});

for (const index of [-1, 3, 4_294_967_295]) {
  test(`checkPath() refuses the index ${index} of a path of three`, () => {
    assert.throws(() => checkPath(server, asCheck({ ...goodPath(), index })), refusedBy("path", "index-out-of-range"));
    assert.throws(() => checkPath([], asCheck({ ...goodPath(), index })), refusedBy("path", "index-out-of-range"));
  });
}

/** The registry's answer: our token, then the NSMgr's; the index is ours again. */
function goodAnswer() {
  const segments = [
    { token: forwarder.tokenFor(nsmgr.id) },
    { token: nsmgr.tokenFor("spiffe://example.org/registry") },
  ];
  const resource = { name: "forwarder-1", id: forwarder.id, pathIds: new Map<string, readonly string[]>() };
  return { index: 0, segments, peer: nsmgr.peer, nowMs: NOW_MS, resource };
}

test("checkRegistration() passes a new name and a name that is ours", () => {
  const answer = goodAnswer();
  // nsmgr's own token is for the next hop of its own, which has no segment of its own in the answer
  checkRegistration(registry, answer);
  const pathIds = new Map([["forwarder-1", [forwarder.id, nsmgr.id]]]);
  checkRegistration(registry, { ...answer, resource: { ...answer.resource, pathIds } });
});

test("checkRegistration() refuses a name that belongs to another, or has no owner", () => {
  const answer = goodAnswer();
  for (const owners of [[nsc.id, forwarder.id], []]) {
    const resource = { ...answer.resource, pathIds: new Map([["forwarder-1", owners]]) };
    const refused = refusedBy("client_allowed.rego", "foreign-resource");
    assert.throws(() => checkRegistration(registry, { ...answer, resource }), refused);
  }
  for (const owners of [[forwarder.id], []]) {
    const resource = { ...answer.resource, id: undefined, pathIds: new Map([["forwarder-1", owners]]) };
    const refused = refusedBy("client_allowed.rego", "foreign-resource");
    assert.throws(() => checkRegistration(registry, { ...answer, resource }), refused);
  }
});

test("checkRegistration() wants the server's token, signed by the server and in its name", async () => {
  const answer = goodAnswer();
  const [own] = answer.segments;
  assert.ok(own !== undefined);
  const refused = (kind: string) => refusedBy("next_token_signed.rego", kind);
  assert.throws(() => checkRegistration(registry, { ...answer, segments: [own] }), refused("no-answer"));
  assert.throws(() => checkRegistration(registry, { ...answer, peer: nsc.peer }), refused("bad-signature"));
  assert.throws(() => checkRegistration(registry, { ...answer, peer: undefined }), refused("no-certificate"));
  const toNsc = { token: forwarder.tokenFor(nsc.id) };
  const foreign = { token: await signed(nsmgr, { sub: nsc.id, aud: ["x"], exp: soon() }) };
  assert.throws(() => checkRegistration(registry, { ...answer, segments: [toNsc, foreign] }), refused("wrong-subject"));
});

test("selectPolicies() reads the original's masks", () => {
  const names = (masks: readonly string[]) =>
    selectPolicies(masks).policies.map((policy) => policy.name.split("/").at(-1));
  const common = ["tokens_chained.rego", "tokens_expired.rego", "tokens_valid.rego"];
  assert.deepEqual(names(serverPolicyMasks), [...common, "prev_token_signed.rego"]);
  assert.deepEqual(names(registryMasks), [...common, "client_allowed.rego", "next_token_signed.rego"]);
  assert.deepEqual(names(["etc/nsm/opa/common/tokens_valid.rego", "policies/common/.*"]).toSorted(), common);
  assert.deepEqual(names(["etc/nsm/opa/.*/tokens_(valid|expired).rego"]), common.slice(1));
  assert.deepEqual(names([]), []);
});

const masks = [
  ["nothing", "etc/nsm/opa/nothing/.*.rego", /selects nothing; built in are etc\/nsm\/opa\/client/],
  ["what is absolute", "/etc/nsm/opa/common/.*.rego", /without the leading slash/],
  ["a Rego file that is not there", "/etc/my/custom.rego", /no such file/],
  ["a compiled policy that is not there", "/etc/my/policy.wasm", /no such file/],
  ["a bundle", "/etc/my/bundle.tar.gz", /take policy.wasm out of it/],
  ["a part of a name", "tokens_valid", /selects nothing/],
  ["no text", "", /selects nothing/],
] as const;
for (const [says, mask, wants] of masks) {
  test(`selectPolicies() warns of a mask that names ${says}, and takes the others`, () => {
    const { policies, warnings } = selectPolicies([...serverPolicyMasks, mask]);
    assert.deepEqual([policies.length, warnings.length], [4, 1]);
    assert.match(warnings[0] ?? "", wants);
  });
}

test("selectPolicies() says so when everything is allowed", () => {
  assert.deepEqual(selectPolicies([]).warnings, ["no policy is selected: every answer is allowed"]);
  const [mask, all] = selectPolicies(["nothing"]).warnings;
  assert.match(`${mask}\n${all}`, /"nothing" selects nothing.*\n.*every answer is allowed$/);
  assert.deepEqual(selectPolicies(serverPolicyMasks).warnings, []);
});

test("selectPolicies() takes policies of one's own by the path of their file, as it is and by a pattern", () => {
  const own = ["/my/a.wasm", "/my/b+.wasm", "/your/c.wasm"].map((name) => ({ name, findFault: () => undefined }));
  const names = (mask: string) => selectPolicies([mask], own).policies.map(({ name }) => name);
  assert.deepEqual(names("/my/.*.wasm"), ["/my/a.wasm", "/my/b+.wasm"]);
  assert.deepEqual(names("/my/b+.wasm"), ["/my/b+.wasm"]);
});

test("selectPolicies() refuses a mask that is no regular expression", () => {
  assert.throws(
    () => selectPolicies([...serverPolicyMasks, "etc/nsm/opa/("]),
    (error) =>
      error instanceof IdentityError && error.fault.kind === "bad-policy-mask" && /no regular/.test(error.message),
  );
});

function with_(path: Path, segment: number, token: string): Path {
  return { ...path, tokens: path.tokens.with(segment, token) };
}

function soon(): number {
  return Math.floor(NOW_MS / 1000) + 60;
}

/** The server's policies with the one under test first: a broken token offends several. */
function reorder(first: string) {
  return server.toSorted((a, b) => Number(b.name.endsWith(first)) - Number(a.name.endsWith(first)));
}
