import assert from "node:assert/strict";
import { test } from "node:test";
import { makeOddCertificate, type OddCertificate, type OddContents } from "../../sandbox/identity/odd-certificate.ts";
import { KEY_USAGE, readCertificate } from "./certificate.ts";
import { verifyPeerChain } from "./verify-peer-chain.ts";

const NOW_MS = Date.UTC(2026, 5, 1);
const valid = { notBeforeMs: NOW_MS - 1000, notAfterMs: NOW_MS + 1000 };
const [MAIL, DNS, URI, ADDRESS] = [0x81, 0x82, 0x86, 0x87];
type Name = readonly [tag: number, value: string];
const PEER: Name = [URI, "spiffe://home.example/nsmgr"];

const make = (contents: OddContents) => makeOddCertificate({ ...valid, ...contents });

function element(tag: number, ...inside: readonly (Uint8Array | string)[]): Buffer {
  const body = Buffer.concat(inside.map((part) => (typeof part === "string" ? Buffer.from(part, "latin1") : part)));
  const length = body.length < 128 ? [body.length] : [0x82, body.length >> 8, body.length & 255];
  return Buffer.concat([Buffer.of(tag, ...length), body]);
}

const encode = ([tag, value]: Name) => element(tag, value);
const named = (names: readonly Name[]) => ({
  id: "2.5.29.17",
  isCritical: false,
  value: element(0x30, ...names.map(encode)),
});

interface Limits {
  readonly permitted?: readonly Name[];
  readonly excluded?: readonly Name[];
}

function limited({ permitted = [], excluded = [] }: Limits) {
  const side = (tag: number, names: readonly Name[]) =>
    names.length === 0 ? "" : element(tag, ...names.map((name) => element(0x30, encode(name))));
  return { id: "2.5.29.30", isCritical: true, value: element(0x30, side(0xa0, permitted), side(0xa1, excluded)) };
}

/** Verifies a leaf below an intermediate below a root, which has the constraints. */
function verify(names: { leaf?: readonly Name[]; middle?: readonly Name[] }, limits: Limits) {
  const root = make({ subject: "root", extensions: [limited(limits)] });
  const middle = make({ subject: "middle", issuer: root, extensions: names.middle ? [named(names.middle)] : [] });
  return verifyBelow(root, middle, names.leaf);
}

function verifyBelow(root: OddCertificate, middle: OddCertificate, names: readonly Name[] = []): string {
  const workload = { subject: "leaf", isCa: false, keyUsage: KEY_USAGE.digitalSignature };
  const leaf = make({ ...workload, issuer: middle, extensions: [named([PEER, ...names])] });
  const bundles = new Map([["home.example", [readCertificate(root.der)]]]);
  return verifyPeerChain([leaf.der, middle.der], bundles, NOW_MS).id;
}

const ip = (...bytes: readonly number[]) => String.fromCharCode(...bytes);
const v6 = (first: number) => ip(first, ...Array(15).fill(0));
const limitsOf = {
  DNS: [DNS, "home.example"],
  mail: [MAIL, "home.example"],
  mailbox: [MAIL, "Me@home.example"],
} as const;
const below: readonly (readonly [says: string, limit: Name, within: readonly Name[], outside: readonly Name[]])[] = [
  [
    "a DNS name",
    limitsOf.DNS,
    [
      [DNS, "home.example"],
      [DNS, "pod.HOME.example"],
      [DNS, "*.home.example"],
    ],
    [
      [DNS, "example"],
      [DNS, "ahome.example"],
      [DNS, ""],
    ],
  ],
  ["a DNS name with a dot", [DNS, ".home.example"], [[DNS, "pod.home.example"]], [[DNS, "home.example"]]],
  [
    "a domain of mail",
    limitsOf.mail,
    [
      [MAIL, "me@home.example"],
      [MAIL, "a.b@pod.home.example"],
    ],
    [[MAIL, "me@example"]],
  ],
  [
    "a mailbox",
    limitsOf.mailbox,
    [[MAIL, "Me@HOME.example"]],
    [
      [MAIL, "me@home.example"],
      [MAIL, "Me@pod.home.example"],
    ],
  ],
  ["addresses", [ADDRESS, ip(10, 0, 0, 0, 255, 0, 0, 0)], [[ADDRESS, ip(10, 1, 2, 3)]], [[ADDRESS, ip(11, 1, 2, 3)]]],
  [
    "addresses of version 6",
    [ADDRESS, v6(0xfd) + v6(0xff)],
    [[ADDRESS, v6(0xfd)]],
    [
      [ADDRESS, v6(0xfe)],
      [ADDRESS, ip(253, 0, 0, 0)],
    ],
  ],
  [
    "a URI's host",
    [URI, "home.example"],
    [
      [URI, "spiffe://home.example"],
      [URI, "https://elsewhere.example@home.example/"],
      [URI, "https://me@ca.HOME.example:8443/a"],
    ],
    [[URI, "spiffe://elsewhere.example"]],
  ],
];
for (const [says, limit, within, outside] of below) {
  // The leaf has its one URI already.
  const places = limit[0] === URI ? (["middle"] as const) : (["leaf", "middle"] as const);
  for (const place of places) {
    test(`verifyPeerChain() holds ${says} in the ${place} against constraints`, () => {
      for (const name of within) {
        assert.equal(verify({ [place]: [name] }, { permitted: [limit] }), PEER[1], name[1]);
        assert.throws(() => verify({ [place]: [name] }, { excluded: [limit] }), /trust bundle excludes/, name[1]);
      }
      for (const name of outside) {
        assert.throws(
          () => verify({ [place]: [name] }, { permitted: [limit] }),
          /trust bundle does not permit/,
          name[1],
        );
        const elsewhere: Limits = { excluded: [limit[0] === URI ? [URI, "other.example"] : limit] };
        assert.equal(verify({ [place]: [name] }, elsewhere), PEER[1], name[1]);
      }
    });
  }
}

test("verifyPeerChain() takes names of one kind below constraints on another", () => {
  const limits: Limits = { permitted: [limitsOf.mail], excluded: [[ADDRESS, v6(0) + v6(0)]] };
  assert.equal(
    verify(
      {
        leaf: [
          [DNS, "a.example"],
          [ADDRESS, ip(10, 0, 0, 1)],
        ],
      },
      limits,
    ),
    PEER[1],
  );
});

test("verifyPeerChain() refuses a wildcard beside a host that is excluded", () => {
  const leaf: readonly Name[] = [[DNS, "*.home.example"]];
  assert.throws(() => verify({ leaf }, { excluded: [[DNS, "pod.home.example"]] }), /excludes "\*\.home\.example"/);
  assert.equal(verify({ leaf }, { excluded: [[DNS, "pod.elsewhere.example"]] }), PEER[1]);
});

const unfit: readonly Name[] = [
  [DNS, "a..b"],
  [MAIL, "me"],
  [MAIL, "@home.example"],
  [URI, "urn:uuid:1"],
  [URI, "https://10.0.0.1/"],
  [URI, "https://[fd00::1]:8443/"],
];
for (const name of unfit) {
  test(`verifyPeerChain() refuses ${name[1]} below any constraint, and takes it elsewhere`, () => {
    const names = { middle: [name] };
    assert.throws(() => verify(names, { excluded: [[DNS, "x.example"]] }), /cannot be held against/);
    const root = make({ subject: "root" });
    assert.equal(verifyBelow(root, make({ subject: "middle", issuer: root, extensions: [named([name])] })), PEER[1]);
  });
}

const malformed: readonly Name[] = [
  [URI, "/relative"],
  [URI, "https://a b/"],
  [URI, "https://[fd00::1/"],
  [URI, "https://home.example/%zz"],
  [URI, "https://home.example./"],
  [URI, "https://home.example/\n"],
  [DNS, "ä"],
  [MAIL, "ä@home.example"],
  [ADDRESS, ip(10, 0, 0)],
];
for (const name of malformed) {
  test(`readCertificate() refuses the name ${JSON.stringify(name[1])}`, () => {
    const { der } = make({ subject: "root", extensions: [named([name])] });
    assert.throws(() => readCertificate(der), {
      name: "IdentityError",
      message: /^Cannot read a certificate: .* in it /,
    });
  });
}

test("verifyPeerChain() compares no more than 2,000 times for one authority", () => {
  const names = (count: number, suffix: string) =>
    Array.from({ length: count }, (_, i): Name => [DNS, `${i}.${suffix}`]);
  // With the peer's URI there are 40 names.
  assert.equal(verify({ leaf: names(39, "home.example") }, { excluded: names(50, "out.example") }), PEER[1]);
  const tooMany = () => verify({ leaf: names(40, "home.example") }, { excluded: names(50, "out.example") });
  assert.throws(tooMany, /constraints that take 2050 comparisons/);
});
