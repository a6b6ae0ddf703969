import { type DerElement, readElements, readInside, readOnly, refuse, TAG_SEQUENCE } from "./der.ts";
import {
  type GeneralName,
  isAddress,
  isDomain,
  type Mailbox,
  NAME_TAG,
  parseMailbox,
  toGeneralName,
  uriHost,
} from "./general-name.ts";

/** Names of certificates below an authority must lie in what is permitted of their kind, and in nothing that is excluded. */
export interface NameConstraints {
  readonly permitted: readonly GeneralName[];
  readonly excluded: readonly GeneralName[];
  /** There are kinds of names that Go's crypto/x509 does not know either. */
  readonly hasUnknown: boolean;
}

const TAG_PERMITTED = 0xa0;
const TAG_EXCLUDED = 0xa1;
const wellFormed: ReadonlySet<string> = new Set([
  `${TAG_PERMITTED}`,
  `${TAG_EXCLUDED}`,
  `${TAG_PERMITTED},${TAG_EXCLUDED}`,
]);

/**
 * NameConstraints ::= SEQUENCE { permittedSubtrees [0] OPTIONAL, excludedSubtrees [1] OPTIONAL } (RFC 5280, 4.2.1.10), one of
 * them at least, none of them empty.
 * @throws {IdentityError} kind "bad-certificate" on what Go's crypto/x509 refuses
 */
export function readNameConstraints(value: Buffer): NameConstraints {
  const sides = readInside(readOnly(value), TAG_SEQUENCE);
  const tags = sides.map(({ tag }) => tag).join();
  if (!wellFormed.has(tags)) throw refuse("its name constraints are not of permitted and excluded");
  const found = { permitted: [] as GeneralName[], excluded: [] as GeneralName[], hasUnknown: false };
  for (const side of sides) {
    const subtrees = readElements(side.body);
    if (subtrees.length === 0) throw refuse("its name constraints hold an empty list");
    const names = side.tag === TAG_PERMITTED ? found.permitted : found.excluded;
    for (const name of subtrees.map(readSubtree)) {
      if (name === undefined) found.hasUnknown = true;
      else names.push(name);
    }
  }
  return found;
}

/** GeneralSubtree ::= SEQUENCE { base GeneralName, … }. Undefined when the kind of name is unknown. */
function readSubtree(subtree: DerElement): GeneralName | undefined {
  const [base] = readInside(subtree, TAG_SEQUENCE);
  if (base === undefined) throw refuse("a name constraint names nothing");
  const name = toGeneralName(base);
  if (name?.tag === NAME_TAG.address) requireRange(name.value);
  else if (name !== undefined) requireConstraint(name.tag, name.value.toString("latin1"));
  return name;
}

/** A peer may write both sides, a thousand names each, before it has proved anything. Takes 0.6 ms. */
const MOST_COMPARISONS = 2_000;

/**
 * Why these names may not be below these constraints; undefined when they may. As in Go's crypto/x509: a domain covers
 * itself and all below it, with a leading dot only those below, and an empty one everything.
 */
export function constraintProblem(names: readonly GeneralName[], constraints: NameConstraints): string | undefined {
  const comparisons = names.length * (constraints.permitted.length + constraints.excluded.length);
  if (comparisons > MOST_COMPARISONS) return `has constraints that take ${comparisons} comparisons`;
  for (const name of names) {
    const subject = toSubject(name);
    if (subject === undefined) return `has constraints that the name ${shown(name)} cannot be held against`;
    const isBy = (constraint: GeneralName) => constraint.tag === name.tag && isCovered(subject, constraint.value);
    const isOfParent = (constraint: GeneralName) =>
      constraint.tag === name.tag && isOfWildcard(subject, constraint.value);
    const { excluded } = constraints;
    if (excluded.some(isBy) || excluded.some(isOfParent)) return `excludes ${shown(name)}`;
    const permitted = constraints.permitted.filter(({ tag }) => tag === name.tag);
    if (permitted.length > 0 && !permitted.some(isBy)) return `does not permit ${shown(name)}`;
  }
  return undefined;
}

/** What of a name is compared: a host, a mailbox or the bytes of an address. */
type Subject = string | Mailbox | Buffer;

function toSubject({ tag, value }: GeneralName): Subject | undefined {
  const text = value.toString("latin1");
  switch (tag) {
    case NAME_TAG.uri:
      return uriHost(text);
    case NAME_TAG.dns:
      return text === "" || isDomain(text) ? text.toLowerCase() : undefined;
    case NAME_TAG.mail:
      return parseMailbox(text);
    case NAME_TAG.address:
      return value;
  }
}

function isCovered(subject: Subject, constraint: Buffer): boolean {
  if (Buffer.isBuffer(subject)) return isInRange(subject, constraint);
  const text = constraint.toString("latin1");
  if (typeof subject === "string") return isWithin(subject, text);
  const mailbox = parseMailbox(text);
  if (mailbox === undefined) return isWithin(subject.domain, text);
  return mailbox.local === subject.local && mailbox.domain === subject.domain;
}

function isWithin(host: string, constraint: string): boolean {
  const desired = constraint.toLowerCase();
  if (desired === "") return true;
  if (desired.startsWith(".")) return host.endsWith(desired);
  return host === desired || host.endsWith(`.${desired}`);
}

/** "*.example.org" also covers the one host below it that is excluded. */
function isOfWildcard(subject: Subject, constraint: Buffer): boolean {
  if (typeof subject !== "string" || !subject.startsWith("*")) return false;
  const parent = (host: string) => /\..*$/.exec(host)?.[0];
  return parent(subject) === parent(constraint.toString("latin1").toLowerCase());
}

/** The range is an address and its mask. */
function isInRange(address: Buffer, range: Buffer): boolean {
  const size = address.length;
  const at = (bytes: Buffer, i: number) => bytes.readUInt8(i) & range.readUInt8(size + i);
  return range.length === 2 * size && address.every((_, i) => at(address, i) === at(range, i));
}

function requireConstraint(tag: number, name: string): void {
  if (tag === NAME_TAG.uri && isAddress(name)) throw refuse("a name constraint of a URI is an address");
  if (tag === NAME_TAG.mail && name.includes("@")) {
    if (parseMailbox(name) === undefined) throw refuse("a name constraint is no mailbox");
  } else if (name !== "" && !isDomain(name.replace(/^\./, ""))) throw refuse("a name constraint is no domain");
}

/** The mask is ones and then zeros. */
function requireRange(bytes: Buffer): void {
  const half = bytes.length / 2;
  if (half !== 4 && half !== 16) throw refuse("a name constraint of an address has an odd length");
  const mask = [...bytes.subarray(half)].map((byte) => byte.toString(2).padStart(8, "0")).join("");
  if (!/^1*0*$/.test(mask)) throw refuse("a name constraint of an address has a mask with holes");
}

/** Names come from the peer: only so much of one goes into a message. */
function shown({ tag, value }: GeneralName): string {
  const text = tag === NAME_TAG.address ? value.toString("hex") : JSON.stringify(value.toString("latin1"));
  return text.length <= 128 ? text : `${text.slice(0, 128)}…`;
}
