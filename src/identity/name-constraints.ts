import { type DerElement, readElements, readInside, readOnly, refuse, TAG_SEQUENCE } from "./der.ts";

/** Hosts that URIs of certificates below an authority must lie in, or must not. */
export interface UriConstraints {
  readonly permitted: readonly string[];
  readonly excluded: readonly string[];
}

/** Tags of GeneralName (RFC 5280, 4.2.1.6). */
const TAG_EMAIL = 0x81;
const TAG_DNS = 0x82;
const TAG_URI = 0x86;
const TAG_IP = 0x87;

const TAG_PERMITTED = 0xa0;
const TAG_EXCLUDED = 0xa1;
const wellFormed: ReadonlySet<string> = new Set([
  `${TAG_PERMITTED}`,
  `${TAG_EXCLUDED}`,
  `${TAG_PERMITTED},${TAG_EXCLUDED}`,
]);

/**
 * NameConstraints ::= SEQUENCE { permittedSubtrees [0] OPTIONAL, excludedSubtrees [1] OPTIONAL } (RFC 5280, 4.2.1.10), one of
 * them at least, none of them empty. Only URIs carry identity here; constraints on other names are read to be refused where
 * they are malformed. `hasUnknown`: there are kinds of names that Go's crypto/x509 does not know either.
 * @throws {IdentityError} kind "bad-certificate" on what Go's crypto/x509 refuses
 */
export function readNameConstraints(value: Buffer): UriConstraints & { readonly hasUnknown: boolean } {
  const sides = readInside(readOnly(value), TAG_SEQUENCE);
  const tags = sides.map(({ tag }) => tag).join();
  if (!wellFormed.has(tags)) throw refuse("its name constraints are not of permitted and excluded");
  const found = { permitted: [] as string[], excluded: [] as string[], hasUnknown: false };
  for (const side of sides) {
    const subtrees = readElements(side.body);
    if (subtrees.length === 0) throw refuse("its name constraints hold an empty list");
    const hosts = side.tag === TAG_PERMITTED ? found.permitted : found.excluded;
    for (const subtree of subtrees) if (!readSubtree(subtree, hosts)) found.hasUnknown = true;
  }
  return found;
}

/** GeneralSubtree ::= SEQUENCE { base GeneralName, … }. False when the kind of name is unknown. */
function readSubtree(subtree: DerElement, hosts: string[]): boolean {
  const [base] = readInside(subtree, TAG_SEQUENCE);
  switch (base?.tag) {
    case undefined:
      throw refuse("a name constraint names nothing");
    case TAG_URI:
      hosts.push(uriHost(base.body));
      return true;
    case TAG_DNS:
    case TAG_EMAIL:
      requireName(base.body, base.tag);
      return true;
    case TAG_IP:
      requireAddress(base.body);
      return true;
    default:
      return false;
  }
}

/**
 * Why the host of a URI may not stand below these constraints; undefined when it may. As in Go's crypto/x509: a constraint
 * covers a host and all below it, with a leading dot only those below, and an empty one covers everything.
 */
export function constraintProblem(host: string, { permitted, excluded }: UriConstraints): string | undefined {
  if (excluded.some((constraint) => isWithin(host, constraint))) return `excludes the trust domain ${host}`;
  if (permitted.length === 0 || permitted.some((constraint) => isWithin(host, constraint))) return undefined;
  return `does not permit the trust domain ${host}`;
}

function isWithin(host: string, constraint: string): boolean {
  const wanted = constraint.toLowerCase();
  if (wanted === "") return true;
  if (wanted.startsWith(".")) return host.endsWith(wanted);
  return host === wanted || host.endsWith(`.${wanted}`);
}

function uriHost(bytes: Buffer): string {
  const host = bytes.toString("latin1");
  if (/^(\d{1,3}\.){3}\d{1,3}$|:/.test(host)) throw refuse("a name constraint of a URI is an address");
  requireDomain(host);
  return host;
}

function requireName(bytes: Buffer, tag: number): void {
  const name = bytes.toString("latin1");
  // An exact mailbox: its domain is what can be malformed in a way that matters.
  const at = tag === TAG_EMAIL ? name.lastIndexOf("@") : -1;
  if (at === 0 || at === name.length - 1) throw refuse("a name constraint is half a mailbox");
  requireDomain(name.slice(at + 1));
}

/** Labels of 1 to 63 printable characters, 253 in all; a leading dot, or nothing at all, is allowed in a constraint. */
function requireDomain(name: string): void {
  if (name === "") return;
  const labels = (name.startsWith(".") ? name.slice(1) : name).split(".");
  const isFit = name.length <= 253 && labels.every((label) => /^[!-~]{1,63}$/.test(label));
  if (!isFit) throw refuse("a name constraint is no domain");
}

/** Address and mask, the mask ones and then zeros. */
function requireAddress(bytes: Buffer): void {
  const half = bytes.length / 2;
  if (half !== 4 && half !== 16) throw refuse("a name constraint of an address has an odd length");
  const mask = [...bytes.subarray(half)].map((byte) => byte.toString(2).padStart(8, "0")).join("");
  if (!/^1*0*$/.test(mask)) throw refuse("a name constraint of an address has a mask with holes");
}
