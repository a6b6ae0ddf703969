// Who a peer is: certificates, chains, tokens, names.
import { X509Certificate } from "node:crypto";
import { readCertificate } from "../../../src/identity/certificate.ts";
import { IdentityError } from "../../../src/identity/error.ts";
import { decodeToken, isSignedBy, splitToken } from "../../../src/identity/jwt.ts";
import { hasPath, parseSpiffeId, trustDomainOf } from "../../../src/identity/spiffe-id.ts";
import { parseSpiffeIdPattern } from "../../../src/identity/spiffe-id-pattern.ts";
import { verifyPeerChain } from "../../../src/identity/verify-peer-chain.ts";
import { der } from "../form.ts";
import { hold, type Target, texts } from "../target.ts";
import { AT_MS, identity, token } from "./identity-seeds.ts";

const bundles = new Map([["example.org", [readCertificate(identity.root)]]]);
const LEAF_ID = "spiffe://example.org/ns/nsm-system/pod/nsmgr-x7k2p";
const leafKey = new X509Certificate(identity.leaf).publicKey;
const signedPart = token.slice(0, token.lastIndexOf("."));

/** What the signature of a certificate is over. */
function signedOf(certificate: Buffer): Buffer | undefined {
  const [outer] = der.split(certificate) ?? [];
  return outer && der.split(outer.body)?.[0]?.body;
}

/** The certificates of a chain, one behind the other. */
function chainOf(input: Buffer): readonly Buffer[] {
  return (der.split(input) ?? [{ tag: 0x30, body: input }]).map((part) => der.join([part]));
}

/** The same by a regular expression, which the pattern itself is not: it could be made to take for ever. */
function matchesByExpression(pattern: string, id: string): boolean {
  const parts = pattern.split(/(\*\*|\*)/).map((part) => {
    if (part === "**") return ".*";
    return part === "*" ? "[^/]*" : part.replace(/[.+?^${}()|[\]\\]/g, "\\$&");
  });
  return new RegExp(`^${parts.join("")}$`, "s").test(id);
}

export const identityTargets: readonly Target[] = [
  {
    name: "certificate",
    says: "one certificate in DER",
    form: der,
    seeds: [identity.leaf, identity.middle, identity.root, identity.odd],
    refusals: [IdentityError],
    run(input) {
      const read = readCertificate(input);
      hold(Number.isFinite(read.notBeforeMs) && Number.isFinite(read.notAfterMs), () => "has a date that is none");
      hold(read.pathLength === undefined || read.pathLength >= 0, () => "has a path length below zero");
      const { isCa, pathLength, keyUsage, uris, names, constraints, unknownCritical, key } = read;
      const lists = [uris, names, unknownCritical, constraints?.permitted ?? [], constraints?.excluded ?? []];
      return `${isCa} ${pathLength} ${keyUsage} ${lists.map((list) => list.length)} ${key.kind}`;
    },
  },
  {
    name: "chain",
    says: "a peer's chain of certificates",
    form: der,
    seeds: [
      Buffer.concat([identity.leaf, identity.middle]),
      Buffer.concat([identity.leaf, identity.odd, identity.middle]),
    ],
    refusals: [IdentityError],
    run(input) {
      const { id, leaf } = verifyPeerChain(chainOf(input), bundles, AT_MS);
      hold(id === LEAF_ID, () => `believes that the peer is ${id}`);
      const signed = signedOf(leaf.x509.raw);
      hold(
        signed !== undefined && signedOf(identity.leaf)?.equals(signed) === true,
        () => "believes a leaf that was changed",
      );
      return "believed";
    },
  },
  {
    name: "token",
    says: "a token of a path",
    seeds: texts(
      token,
      `${Buffer.from('{"alg":"none"}').toString("base64url")}.${Buffer.from('{"sub":"a","aud":"b"}').toString("base64url")}.`,
    ),
    words: [".", "=", "-", "eyJhbGciOiJub25lIn0", Buffer.from('{"exp":1e400}').toString("base64url")],
    mostBytes: 16_384,
    refusals: [IdentityError],
    run(input) {
      const text = input.toString("latin1");
      const parts = splitToken(text);
      if (isSignedBy(parts, leafKey)) hold(parts.signed === signedPart, () => "believes a token that was changed");
      const { aud, expMs } = decodeToken(text);
      hold(new Date(expMs).getTime() >= 0, () => "ends at a time that is none");
      return `${aud.length}`;
    },
  },
  {
    name: "token-claims",
    says: "what a token says, in JSON",
    seeds: texts(
      '{"sub":"spiffe://a/b","aud":["spiffe://a/c"],"exp":1767225600}',
      '{"exp":1e12,"aud":"x"}',
      '{"sub":{"a":[1]}}',
    ),
    words: ["1e999", "-0", "null", "[[", '"exp":', '"sub":', '"aud":', '"__proto__":{"sub":"a"}'],
    refusals: [IdentityError],
    run(input) {
      const header = Buffer.from('{"alg":"ES256"}').toString("base64url");
      const { sub, aud, expMs } = decodeToken(`${header}.${input.toString("base64url")}.AAAA`);
      hold(typeof sub === "string" && aud.every((one) => typeof one === "string"), () => "has claims of another type");
      hold(new Date(expMs).getTime() >= 0, () => "ends at a time that is none");
      return `${aud.length}`;
    },
  },
  {
    name: "spiffe-id",
    says: "a SPIFFE ID",
    seeds: texts(LEAF_ID, "spiffe://example.org", "spiffe://a.b-c_d/E/f.g/..h"),
    words: ["spiffe://", "/../", "//", "%2e", "\u00e9", "@", "?"],
    refusals: [IdentityError],
    run(input) {
      const id = parseSpiffeId(input.toString("utf8"));
      hold(id.length <= 2048, () => "is longer than any may be");
      hold(id.startsWith(`spiffe://${trustDomainOf(id)}`), () => "its trust domain is another");
      const url = new URL(id);
      hold(url.hostname === trustDomainOf(id) && !url.search && !url.username, () => "a URL parser sees another host");
      hold(url.pathname === id.slice("spiffe://".length + url.hostname.length), () => "a URL parser sees another path");
      return `${hasPath(id)}`;
    },
  },
  {
    name: "spiffe-id-pattern",
    says: "NSM_MANAGER_SPIFFE_ID, and the ID of a peer behind it",
    seeds: texts(
      `spiffe://example.org/ns/*/pod/nsmgr-*\n${LEAF_ID}`,
      `spiffe://example.org/**/nsmgr-*\n${LEAF_ID}`,
      `spiffe://example.org/**/a/**/b*c*d\nspiffe://example.org/a/a/a/bccd`,
    ),
    words: ["*", "**", "/", "/**", "a", "aa", "\n"],
    mostBytes: 128,
    refusals: [SyntaxError],
    run(input) {
      const [text = "", id = ""] = input.toString("latin1").split("\n");
      const pattern = parseSpiffeIdPattern(text);
      const matches = pattern.matches(id);
      // The same only where no segment is empty, which no ID has; and with more stars the expression would be what takes the time.
      if (/^spiffe:\/\/[^/]+(\/[^/]+)+$/.test(id) && !text.includes("**") && text.split("*").length <= 4) {
        hold(
          matches === matchesByExpression(text, id),
          () => `${JSON.stringify(text)} and ${JSON.stringify(id)}: ${matches}`,
        );
      }
      return String(matches);
    },
  },
];
