import assert from "node:assert/strict";
import { createPublicKey, generateKeyPairSync, type JsonWebKey, randomBytes } from "node:crypto";
import { test } from "node:test";
import { makeOddCertificate, type OddCertificate, type OddContents } from "../../sandbox/identity/odd-certificate.ts";
import { KEY_USAGE, readCertificate } from "./certificate.ts";
import { IdentityError } from "./error.ts";
import { verifyPeerChain } from "./verify-peer-chain.ts";

const NOW_MS = Date.UTC(2026, 5, 1);
const DAY_MS = 86_400_000;
const MANAGER = "spiffe://home.example/nsmgr";
const valid = { notBeforeMs: NOW_MS - DAY_MS, notAfterMs: NOW_MS + DAY_MS };
const leafContents = { ...valid, subject: "leaf", isCa: false, keyUsage: KEY_USAGE.digitalSignature, uris: [MANAGER] };

const make = (contents: OddContents) => makeOddCertificate({ ...valid, ...contents });
const leafBelow = (issuer: OddCertificate, contents: Partial<OddContents> = {}) =>
  make({ ...leafContents, ...contents, issuer });

/** Verifies leaf, then intermediates, against the root. */
function verify(root: OddCertificate, ...chain: readonly OddCertificate[]): string {
  const bundles = new Map([["home.example", [readCertificate(root.der)]]]);
  return verifyPeerChain(
    chain.map(({ der }) => der),
    bundles,
    NOW_MS,
  ).id;
}

function refuses(verifying: () => unknown, reason: RegExp): void {
  assert.throws(
    verifying,
    (error) => error instanceof IdentityError && error.fault.kind === "untrusted-peer" && reason.test(error.message),
    `want ${reason}`,
  );
}

/** A chain with the contents given in each place. */
function chainWith(contents: {
  root?: Partial<OddContents>;
  middle?: Partial<OddContents>;
  leaf?: Partial<OddContents>;
}) {
  const root = make({ subject: "root", ...contents.root });
  const middle = make({ subject: "middle", issuer: root, ...contents.middle });
  return () => verify(root, leafBelow(middle, contents.leaf), middle);
}

test("verifyPeerChain() takes a chain that another hand wrote", () => {
  assert.equal(chainWith({})(), MANAGER);
});

test("verifyPeerChain() refuses a chain whose authority has only the name of ours", () => {
  const [root, impostor] = [make({ subject: "root" }), make({ subject: "root" })];
  refuses(() => verify(root, leafBelow(impostor)), /leads to no authority/);
  const middle = make({ subject: "middle", issuer: impostor });
  refuses(() => verify(root, leafBelow(middle), middle), /leads to no authority/);
});

test("verifyPeerChain() distinguishes twenty authorities of one name by the identifiers of their keys", () => {
  const idOf = (at: number) => Buffer.of(0x04, 1, at); // OCTET STRING
  const roots = Array.from({ length: 20 }, (_, at) =>
    make({ subject: "SPIRE", ...extension("2.5.29.14", false, idOf(at)) }),
  );
  const bundles = new Map([["home.example", roots.map(({ der }) => readCertificate(der))]]);
  const last = roots.at(-1);
  assert.ok(last);
  const named = leafBelow(last, extension("2.5.29.35", false, Buffer.of(0x30, 3, 0x80, 1, 19)));
  assert.equal(verifyPeerChain([named.der], bundles, NOW_MS).id, MANAGER);
  // Without the identifier of its issuer's key each of them has to be tried.
  refuses(() => verifyPeerChain([leafBelow(last).der], bundles, NOW_MS), /takes more than 12 signature checks/);
});

test("readCertificate() refuses extensions in a certificate that is not of version 3", () => {
  const der = Buffer.from(make({ subject: "root" }).der);
  const version = der.indexOf(Buffer.from("a003020102", "hex"));
  der.writeUInt8(1, version + 4);
  assert.throws(() => readCertificate(der), /has extensions and is not of version 3/);
});

test("verifyPeerChain() refuses what a workload signs with its own certificate", () => {
  const root = make({ subject: "root" });
  const workload = leafBelow(root, { subject: "workload", uris: ["spiffe://home.example/workload"] });
  refuses(
    () => verify(root, leafBelow(workload), workload),
    /intermediate certificate is none of an authority \(no CA flag\)/,
  );
});

const noAuthorities: readonly (readonly [string, Partial<OddContents>, RegExp])[] = [
  ["the CA flag", { isCa: false }, /no CA flag/],
  ["the CA flag and any usage", { isCa: undefined, keyUsage: undefined }, /no CA flag/],
  ["keyCertSign", { keyUsage: KEY_USAGE.crlSign }, /no keyCertSign/],
  ["keyCertSign, with all the other usages", { keyUsage: 0x1ff & ~KEY_USAGE.keyCertSign }, /no keyCertSign/],
];
for (const [what, contents, reason] of noAuthorities) {
  test(`verifyPeerChain() refuses an authority without ${what}, in the bundle and below it`, () => {
    refuses(chainWith({ root: contents }), new RegExp(`trust bundle.*${reason.source}`));
    refuses(chainWith({ middle: contents }), new RegExp(`intermediate.*${reason.source}`));
  });
}

test("verifyPeerChain() takes authorities that say nothing of their usage", () => {
  assert.equal(chainWith({ root: { keyUsage: undefined }, middle: { keyUsage: undefined } })(), MANAGER);
});

for (const [pathLength, below, isTaken] of [
  [0, 0, true],
  [0, 1, false],
  [1, 1, true],
  [1, 2, false],
  [2, 2, true],
] as const) {
  test(`verifyPeerChain() ${isTaken ? "takes" : "refuses"} ${below} authorities below one that allows ${pathLength}`, () => {
    const root = make({ subject: "root", pathLength });
    const middles: OddCertificate[] = [];
    for (let at = 0; at < below; at++) middles.unshift(make({ subject: `middle ${at}`, issuer: middles[0] ?? root }));
    const verifying = () => verify(root, leafBelow(middles[0] ?? root), ...middles);
    if (isTaken) assert.equal(verifying(), MANAGER);
    else refuses(verifying, new RegExp(`allows ${pathLength} below it, there are ${below}`));
  });
}

test("verifyPeerChain() counts the path length of an intermediate from the leaf", () => {
  const root = make({ subject: "root" });
  const upper = make({ subject: "upper", issuer: root, pathLength: 0 });
  const lower = make({ subject: "lower", issuer: upper });
  assert.equal(verify(root, leafBelow(upper), upper), MANAGER);
  refuses(
    () => verify(root, leafBelow(lower), lower, upper),
    /intermediate certificate allows 0 below it, there are 1/,
  );
});

const sequence = Buffer.of(0x30, 0);
const extension = (id: string, isCritical: boolean, value: Uint8Array = sequence) => ({
  extensions: [{ id, isCritical, value }],
});
const criticals: readonly (readonly [string, Partial<OddContents>, boolean])[] = [
  ["an unknown critical extension", extension("1.2.3.4", true), false],
  ["an unknown extension", extension("1.2.3.4", false), true],
  ["critical certificate policies", extension("2.5.29.32", true), true],
  ["critical policy constraints", extension("2.5.29.36", true), false],
  ["a critical constraint on directory names", constraint("a0063004a4023000", true), false],
  ["a constraint on directory names", constraint("a0063004a4023000", false), true],
];
for (const [what, contents, isTaken] of criticals) {
  for (const place of ["root", "middle", "leaf"] as const) {
    test(`verifyPeerChain() ${isTaken ? "takes" : "refuses"} ${what} in the ${place}`, () => {
      const verifying = chainWith({ [place]: contents });
      if (isTaken) assert.equal(verifying(), MANAGER);
      else refuses(verifying, /has critical extensions unknown here/);
    });
  }
}

for (const place of ["root", "middle", "leaf"] as const) {
  test(`verifyPeerChain() takes the ${place} to the last millisecond of its time, and not one more`, () => {
    assert.equal(chainWith({ [place]: { notBeforeMs: NOW_MS } })(), MANAGER);
    refuses(chainWith({ [place]: { notBeforeMs: NOW_MS + 1000 } }), /valid only from 2026-06-01T00:00:01/);
    assert.equal(chainWith({ [place]: { notAfterMs: NOW_MS } })(), MANAGER);
    refuses(chainWith({ [place]: { notAfterMs: NOW_MS - 1000 } }), /expired at 2026-05-31T23:59:59/);
  });
}

test("verifyPeerChain() refuses critical names of an authority of which it understands none", () => {
  const names = (hex: string) => ({ middle: extension("2.5.29.17", true, Buffer.from(hex, "hex")) });
  refuses(chainWith(names("3004a4023000")), /critical extensions unknown here: 2\.5\.29\.17/);
  assert.equal(chainWith(names("3007a4023000820161"))(), MANAGER);
});

test("readCertificate() refuses what follows the certificate", () => {
  const { der } = make({ subject: "root" });
  assert.throws(() => readCertificate(Buffer.concat([der, Buffer.of(5, 0)])), { name: "IdentityError" });
});

test("readCertificate() refuses dates that are none: they would never be over", () => {
  const { der } = make({ subject: "root" });
  const at = der.indexOf("260602"); // of notAfter
  for (const nonsense of ["269902", "260230", "2606x2", "------"]) {
    const broken = Buffer.from(der);
    broken.write(nonsense, at, "latin1");
    assert.throws(() => readCertificate(broken), { name: "IdentityError" }, nonsense);
  }
});

const constrained: readonly (readonly [NonNullable<OddContents["constraints"]>, RegExp | undefined])[] = [
  [{ permitted: ["home.example"] }, undefined],
  [{ permitted: ["HOME.example"] }, undefined],
  [{ permitted: ["example"] }, undefined],
  [{ permitted: [".example"] }, undefined],
  [{ permitted: ["elsewhere.example", "home.example"] }, undefined],
  [{ permitted: [""] }, undefined],
  [{ permitted: ["elsewhere.example"] }, /does not permit "spiffe:\/\/home\.example\/nsmgr"/],
  [{ permitted: [".home.example"] }, /does not permit/],
  [{ permitted: ["ome.example"] }, /does not permit/],
  [{ excluded: ["elsewhere.example"] }, undefined],
  [{ excluded: [".home.example"] }, undefined],
  [{ excluded: ["home.example"] }, /excludes "spiffe:\/\/home\.example\/nsmgr"/],
  [{ excluded: ["Example"] }, /excludes/],
  [{ excluded: [".example"] }, /excludes/],
  [{ excluded: [""] }, /excludes/],
  [{ permitted: ["home.example"], excluded: ["home.example"] }, /excludes/],
];
for (const [constraints, reason] of constrained) {
  test(`verifyPeerChain() ${reason ? "refuses" : "takes"} a peer of home.example below ${JSON.stringify(constraints)}`, () => {
    for (const place of ["root", "middle"] as const) {
      const verifying = chainWith({ [place]: { constraints } });
      if (reason) refuses(verifying, reason);
      else assert.equal(verifying(), MANAGER);
    }
  });
}

/** nameConstraints of these bytes, in hex, inside their SEQUENCE. */
function constraint(inside: string, isCritical = true): Partial<OddContents> {
  return extension("2.5.29.30", isCritical, wrap(0x30, inside));
}

function wrap(tag: number, inside: string): Buffer {
  const body = Buffer.from(inside, "hex");
  return Buffer.concat([
    body.length < 128 ? Buffer.of(tag, body.length) : Buffer.of(tag, 0x82, body.length >> 8, body.length & 255),
    body,
  ]);
}

/** Permitted: one subtree with a GeneralName of this tag and text. */
function permitted(tag: number, name: string | Uint8Array): string {
  const base = wrap(tag, Buffer.from(name as string).toString("hex"));
  return wrap(0xa0, wrap(0x30, base.toString("hex")).toString("hex")).toString("hex");
}

const malformed: readonly (readonly [string, Partial<OddContents>])[] = [
  ["empty name constraints", constraint("")],
  ["an empty permitted list", constraint("a000")],
  ["an empty excluded list", constraint("a100")],
  ["excluded before permitted", constraint(`${permitted(0x86, "a").replace("a0", "a1")}${permitted(0x86, "a")}`)],
  ["permitted twice", constraint(`${permitted(0x86, "a")}${permitted(0x86, "b")}`)],
  ["a third list", constraint(`${permitted(0x86, "a")}a203040100`)],
  ["a constraint without a name", constraint("a0023000")],
  ["a constraint that is no sequence", constraint("a003860161")],
  ["an address as a URI's host", constraint(permitted(0x86, "10.0.0.1"))],
  ["a URI's host that ends in a dot", constraint(permitted(0x86, "a."))],
  ["a URI's host with an empty label", constraint(permitted(0x86, "a..b"))],
  ["a URI's host with a space", constraint(permitted(0x86, "a b"))],
  ["a URI's host beyond ASCII", constraint(permitted(0x86, "ä"))],
  ["a URI's host with a label of 64", constraint(permitted(0x86, "a".repeat(64)))],
  ["a URI's host of 254", constraint(permitted(0x86, `${"a.".repeat(126)}bb`))],
  ["a DNS name with an empty label", constraint(permitted(0x82, "a..b"))],
  ["half a mailbox", constraint(permitted(0x81, "a@"))],
  ["an address of 7 bytes", constraint(permitted(0x87, Buffer.alloc(7)))],
  ["a mask with holes", constraint(permitted(0x87, Buffer.from("0a000000ff00ff00", "hex")))],
  [
    "bytes behind name constraints",
    extension("2.5.29.30", true, Buffer.concat([wrap(0x30, permitted(0x86, "a")), sequence])),
  ],
  ["name constraints cut short", extension("2.5.29.30", true, wrap(0x30, permitted(0x86, "a")).subarray(0, -1))],
  ...[
    ["a flag of 1", "30030101 01"],
    ["a flag of two bytes", "30040102ffff"],
    ["a flag behind the length", "30060201000101ff"],
    ["a negative length", "30060101ff0201ff"],
    ["a length with a leading zero", "30070101ff02020001"],
    ["an empty length", "30050101ff0200"],
    ["a length of five bytes", "300a0101ff02050100000000"],
    ["something more", "30080101ff0201000500"],
    ["bytes behind", "30030101ff0500"],
    ["no sequence", "0101ff"],
  ].map(([what, hex]) => {
    const value = Buffer.from((hex ?? "").replaceAll(" ", ""), "hex");
    return [`basic constraints with ${what}`, { isCa: undefined, ...extension("2.5.29.19", true, value) }] as const;
  }),
  [
    "key usage with unused bits set",
    { keyUsage: undefined, ...extension("2.5.29.15", true, Buffer.from("030201ff", "hex")) },
  ],
  [
    "key usage with nine unused bits",
    { keyUsage: undefined, ...extension("2.5.29.15", true, Buffer.from("03020980", "hex")) },
  ],
  ["the same extension twice", extension("2.5.29.15", true, Buffer.from("03020106", "hex"))],
];
for (const [what, contents] of malformed) {
  test(`verifyPeerChain() refuses a peer that brings ${what}`, () => {
    refuses(chainWith({ middle: contents }), /Cannot read a certificate: /);
  });
}

test("verifyPeerChain() takes ten certificates, and no chain that is longer in number or in bytes", () => {
  const root = make({ subject: "root" });
  const leaf = leafBelow(root);
  const others = Array.from({ length: 10 }, (_, at) => make({ subject: `other ${at}` }));
  assert.equal(verify(root, leaf, ...others.slice(1)), MANAGER);
  refuses(() => verify(root, leaf, ...others), /sent 11 certificates/);
  const filled = (bytes: number) => leafBelow(root, extension("1.2.3.4", false, wrap(0x04, "00".repeat(bytes))));
  const bare = filled(15_000).der.length - 15_000;
  const most = filled(16_384 - bare - 8); // for what the lengths of a signature's two numbers differ by
  assert.ok(most.der.length <= 16_384);
  assert.equal(verify(root, most), MANAGER);
  refuses(() => verify(root, filled(16_384)), /certificates have \d+ bytes; 16384 are read/);
});

test("verifyPeerChain() follows nine authorities, one above the other, and gives up certificates that all vouch for each other", () => {
  const root = make({ subject: "root" });
  const middles: OddCertificate[] = [];
  for (let at = 0; at < 9; at++) middles.unshift(make({ subject: `middle ${at}`, issuer: middles[0] ?? root }));
  assert.equal(verify(root, leafBelow(middles[0] ?? root), ...middles), MANAGER);
  const key = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const clique = Array.from({ length: 9 }, () => make({ subject: "same", key }));
  const [first] = clique;
  assert.ok(first);
  refuses(() => verify(root, leafBelow(first), ...clique), /takes more than 12 signature checks/);
});

/** A public key with these numbers whose other half is unknown. */
function rsaKey(modulusBits: number, exponent: Buffer): Buffer {
  const modulus = randomBytes(modulusBits / 8);
  modulus.writeUInt8(modulus.readUInt8(0) | 0x80, 0);
  modulus.writeUInt8(modulus.readUInt8(modulus.length - 1) | 1, modulus.length - 1);
  const key: JsonWebKey = { kty: "RSA", n: modulus.toString("base64url"), e: exponent.toString("base64url") };
  return createPublicKey({ key, format: "jwk" }).export({ type: "spki", format: "der" });
}

const ODD = Buffer.concat([Buffer.of(0x80), Buffer.alloc(382, 0xff)]); // 3064 bits
const F4 = Buffer.of(1, 0, 1);
const curve = (namedCurve: string, paramEncoding: "named" | "explicit" = "named") =>
  generateKeyPairSync("ec", { namedCurve, paramEncoding }).publicKey.export({ type: "spki", format: "der" });
const costly: readonly (readonly [string, Buffer, RegExp])[] = [
  ["an exponent of 3064 bits", rsaKey(3072, ODD), /exponent of 3064 bits; at most 31 are taken/],
  ["an exponent of 32 bits", rsaKey(3072, Buffer.of(0x80, 0, 0, 1)), /exponent of 32 bits/],
  ["an RSA key of 8200 bits", rsaKey(8200, F4), /RSA key of 8200 bits; 2048 to 8192 are taken/],
  ["an RSA key of 2040 bits", rsaKey(2040, F4), /RSA key of 2040 bits/],
  ["a key on secp256k1", curve("secp256k1"), /curve other than P-256, P-384 and P-521/],
  ["a key on a curve that is spelt out", curve("P-256", "explicit"), /curve other than P-256, P-384 and P-521/],
  [
    "a DSA key",
    generateKeyPairSync("dsa", { modulusLength: 1024, divisorLength: 160 }).publicKey.export({
      type: "spki",
      format: "der",
    }),
    /key of an unknown kind \(1\.2\.840\.10040\.4\.1\)/,
  ],
];
for (const [what, publicKeyDer, reason] of costly) {
  test(`verifyPeerChain() checks no signature with ${what}`, () => {
    refuses(chainWith({ middle: { publicKeyDer } }), new RegExp(`intermediate certificate has .*${reason.source}`));
    refuses(chainWith({ root: { publicKeyDer } }), new RegExp(`trust bundle has .*${reason.source}`));
  });
}

test("verifyPeerChain() takes RSA authorities as they are made, and EC ones on the three curves", () => {
  const kinds = [
    ...[2048, 4096].map((modulusLength) => generateKeyPairSync("rsa", { modulusLength })),
    generateKeyPairSync("rsa", { modulusLength: 2048, publicExponent: 3 }),
    ...["P-256", "P-384", "P-521"].map((namedCurve) => generateKeyPairSync("ec", { namedCurve })),
  ];
  for (const key of kinds) assert.equal(chainWith({ root: { key }, middle: { key } })(), MANAGER);
});

test("verifyPeerChain() takes SHA-2 signatures alone", () => {
  for (const hash of ["sha256", "sha384", "sha512"] as const) assert.equal(chainWith({ leaf: { hash } })(), MANAGER);
  refuses(chainWith({ leaf: { hash: "sha1" } }), /signed with an algorithm that is not taken/);
  refuses(chainWith({ middle: { hash: "sha1" } }), /signed with an algorithm that is not taken/);
});

test("verifyPeerChain() takes leaves with EC keys alone", () => {
  for (const namedCurve of ["P-256", "P-384", "P-521"])
    assert.equal(chainWith({ leaf: { key: generateKeyPairSync("ec", { namedCurve }) } })(), MANAGER);
  refuses(chainWith({ leaf: { key: generateKeyPairSync("rsa", { modulusLength: 2048 }) } }), /has an RSA key/);
  refuses(chainWith({ leaf: { publicKeyDer: curve("secp256k1") } }), /curve other than/);
});
