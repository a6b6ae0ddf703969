import { X509Certificate } from "node:crypto";
import { type KeyKind, readAlgorithm, readKeyKind } from "./certificate-key.ts";
import {
  bodyOf,
  booleanOf,
  countOf,
  type DerElement,
  oidOf,
  readElements,
  readInside,
  readOnly,
  refuse,
  TAG_BIT_STRING,
  TAG_BOOLEAN,
  TAG_INTEGER,
  TAG_OCTET_STRING,
  TAG_SEQUENCE,
} from "./der.ts";
import { IdentityError } from "./error.ts";
import { type GeneralName, NAME_TAG, requireName, toGeneralName } from "./general-name.ts";
import { type NameConstraints, readNameConstraints } from "./name-constraints.ts";

/** Bits of KeyUsage in the order of RFC 5280, 4.2.1.3, first bit lowest. */
export const KEY_USAGE = { digitalSignature: 1 << 0, keyCertSign: 1 << 5, crlSign: 1 << 6 } as const;

/** A certificate and what Node's own reading of it does not give, or gives otherwise than go-spiffe sees it. */
export interface Certificate {
  readonly x509: X509Certificate;
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
  /** The CA flag of basicConstraints alone. `X509Certificate.ca` is false for a CA without keyCertSign. */
  readonly isCa: boolean;
  /** How many authorities may be below this one; undefined: any number. */
  readonly pathLength: number | undefined;
  /** `KEY_USAGE` bits; undefined when the extension is missing. Node shows only the extended usages. */
  readonly keyUsage: number | undefined;
  /** URI subject alternative names, byte for byte. Node's text form of them is quoted and escaped. */
  readonly uris: readonly string[];
  /** All subject alternative names of known kinds, URIs among them. */
  readonly names: readonly GeneralName[];
  readonly constraints: NameConstraints | undefined;
  /** Critical extensions that nothing here understands: RFC 5280 wants such a certificate refused. */
  readonly unknownCritical: readonly string[];
  readonly key: KeyKind;
  /** Of the signature on it: a dotted OBJECT IDENTIFIER. */
  readonly signatureAlgorithm: string;
  /** Names in DER: one certificate may have issued another if they are equal byte for byte, as in Go's crypto/x509. */
  readonly subject: Buffer;
  readonly issuer: Buffer;
  /** subjectKeyIdentifier, and that of the issuer; undefined when missing. */
  readonly keyId: Buffer | undefined;
  readonly issuerKeyId: Buffer | undefined;
}

/** @throws {IdentityError} kind "bad-certificate" */
export function readCertificate(der: Buffer): Certificate {
  const x509 = parse(der);
  const { extensions, ...parts } = partsOf(der);
  const facts: Facts = { isCa: false, names: [], unknownCritical: [] };
  const seen = new Set<string>();
  for (const extension of extensions) readExtension(extension, facts, seen);
  const uris = facts.names.filter(({ tag }) => tag === NAME_TAG.uri).map(({ value }) => value.toString("latin1"));
  const missing = undefined;
  const none = { pathLength: missing, keyUsage: missing, keyId: missing, issuerKeyId: missing, constraints: missing };
  return { x509, uris, ...none, ...facts, ...parts };
}

/** The certificates of a field of the Workload API: DER, one after the other, nothing between. */
export function readCertificates(der: Buffer): Certificate[] {
  return readElements(der).map((element) => readCertificate(element.whole));
}

interface Facts {
  isCa: boolean;
  pathLength?: number;
  keyUsage?: number;
  keyId?: Buffer;
  issuerKeyId?: Buffer;
  names: GeneralName[];
  constraints?: NameConstraints;
  unknownCritical: string[];
}

function parse(der: Buffer): X509Certificate {
  try {
    return new X509Certificate(der);
  } catch (error) {
    throw new IdentityError({ kind: "bad-certificate", problem: "it is no X.509 in DER" }, { cause: error });
  }
}

interface Parts
  extends Pick<Certificate, "signatureAlgorithm" | "key" | "subject" | "issuer" | "notBeforeMs" | "notAfterMs"> {
  readonly extensions: readonly DerElement[];
}

const TAG_VERSION = 0xa0;
const TAG_EXTENSIONS = 0xa3;

/**
 * Certificate ::= SEQUENCE { TBSCertificate, signatureAlgorithm, signature }; TBSCertificate ::= SEQUENCE { version [0],
 * serialNumber, signature, issuer, validity, subject, subjectPublicKeyInfo, …, extensions [3] EXPLICIT } (RFC 5280, 4.1).
 */
function partsOf(der: Buffer): Parts {
  const [certificate, ...more] = readElements(der);
  if (more.length > 0) throw refuse("bytes follow the certificate");
  const [toBeSigned, algorithm] = readInside(certificate, TAG_SEQUENCE);
  const fields = readInside(toBeSigned, TAG_SEQUENCE);
  const version = fields[0]?.tag === TAG_VERSION ? countOf(readOnly(fields.shift()?.body ?? der)) : 0;
  const [, , issuer, validity, subject, key] = fields;
  const [notBefore, notAfter] = readInside(validity, TAG_SEQUENCE);
  const extensions = fields.find((element) => element.tag === TAG_EXTENSIONS);
  if (extensions !== undefined && version !== 2) throw refuse("it has extensions and is not of version 3");
  return {
    signatureAlgorithm: readAlgorithm(algorithm),
    key: readKeyKind(key),
    notBeforeMs: timeOf(notBefore),
    notAfterMs: timeOf(notAfter),
    issuer: bodyOf(issuer, TAG_SEQUENCE),
    subject: bodyOf(subject, TAG_SEQUENCE),
    extensions: extensions === undefined ? [] : readInside(readOnly(extensions.body), TAG_SEQUENCE),
  };
}

/**
 * Time ::= UTCTime "YYMMDDHHMMSSZ" or GeneralizedTime "YYYYMMDDHHMMSSZ" (RFC 5280, 4.1.2.5), in ms since 1970. Of one that is
 * none Node makes any date, or none at all: such a certificate might never expire.
 */
function timeOf(element: DerElement | undefined): number {
  const text = element?.body.toString("latin1") ?? "";
  const isShort = element?.tag === 0x17 && /^\d{12}Z$/.test(text);
  if (!isShort && !(element?.tag === 0x18 && /^\d{14}Z$/.test(text))) throw refuse("its dates cannot be read");
  const digits = isShort ? `${text < "50" ? "20" : "19"}${text}` : text;
  const iso = digits.replace(/(....)(..)(..)(..)(..)(..)Z/, "$1-$2-$3T$4:$5:$6.000Z");
  const ms = Date.parse(iso);
  if (!Number.isFinite(ms) || new Date(ms).toISOString() !== iso) throw refuse("its dates cannot be read");
  return ms;
}

/** Extension ::= SEQUENCE { extnID, critical DEFAULT FALSE, extnValue OCTET STRING }. */
function readExtension(extension: DerElement, facts: Facts, seen: Set<string>): void {
  const [id, ...rest] = readInside(extension, TAG_SEQUENCE);
  const isCritical = rest.length === 2 && booleanOf(rest[0] as DerElement);
  if (rest.length !== 1 && rest.length !== 2) throw refuse("an extension has too little or too much in it");
  const value = bodyOf(rest.at(-1), TAG_OCTET_STRING);
  const name = oidOf(id);
  if (seen.has(name)) throw refuse(`the extension ${name} is there twice`);
  seen.add(name);
  const isUnderstood = readers[name]?.(value, facts) ?? false;
  if ((isCritical || name === POLICY_CONSTRAINTS) && !isUnderstood) facts.unknownCritical.push(name);
}

/** AuthorityKeyIdentifier ::= SEQUENCE { keyIdentifier [0] IMPLICIT OCTET STRING OPTIONAL, … } (RFC 5280, 4.2.1.1). */
const TAG_KEY_ID = 0x80;

/**
 * It makes a chain fail whose policies do not fit, and RFC 5280 (4.2.1.11) wants it critical. Nothing here follows policies, so
 * it is refused when it is not critical too.
 */
const POLICY_CONSTRAINTS = "2.5.29.36";

/** Each says whether it has understood the extension, as Go's crypto/x509 would. */
const readers: Readonly<Record<string, (value: Buffer, facts: Facts) => boolean>> = {
  "2.5.29.14": (value, facts) => {
    facts.keyId = bodyOf(readOnly(value), TAG_OCTET_STRING);
    return false; // RFC 5280 forbids to mark it critical; the same of the issuer's
  },
  "2.5.29.15": readKeyUsage,
  "2.5.29.17": readAlternativeNames,
  "2.5.29.19": readBasicConstraints,
  "2.5.29.30": (value, facts) => {
    facts.constraints = readNameConstraints(value);
    return !facts.constraints.hasUnknown;
  },
  "2.5.29.31": (value) => isListOf(value, (point) => bodyOf(point, TAG_SEQUENCE)), // cRLDistributionPoints: SPIFFE revokes nothing
  "2.5.29.32": readPolicies,
  "2.5.29.33": (value) => !isListOf(value, readPolicyMapping),
  "2.5.29.35": (value, facts) => {
    const [id] = readInside(readOnly(value), TAG_SEQUENCE);
    if (id?.tag === TAG_KEY_ID) facts.issuerKeyId = id.body;
    return false;
  },
  [POLICY_CONSTRAINTS]: (value) => !isListOf(value, ({ tag }) => tag),
  "2.5.29.37": (value) => isListOf(value, oidOf), // extendedKeyUsage: go-spiffe takes any
  "2.5.29.54": (value) => countOf(readOnly(value)) < 0,
  "1.3.6.1.5.5.7.1.1": (value) => !isListOf(value, (access) => oidOf(readInside(access, TAG_SEQUENCE)[0])),
};

const ANY_POLICY = "2.5.29.32.0";

/** policyMappings ::= SEQUENCE OF SEQUENCE { issuerDomainPolicy, subjectDomainPolicy } (RFC 5280, 4.2.1.5). */
function readPolicyMapping(mapping: DerElement): void {
  if (readInside(mapping, TAG_SEQUENCE).map(oidOf).includes(ANY_POLICY)) throw refuse("it maps any policy to another");
}

/** Always true: what is no list of such elements is refused, as Go's crypto/x509 reads it at once. */
function isListOf(value: Buffer, read: (element: DerElement) => unknown): boolean {
  readInside(readOnly(value), TAG_SEQUENCE).forEach(read);
  return true;
}

/** certificatePolicies: without policyConstraints any will do, each once. */
function readPolicies(value: Buffer): boolean {
  const seen = new Set<string>();
  return isListOf(value, (policy) => {
    const id = oidOf(readInside(policy, TAG_SEQUENCE)[0]);
    if (seen.has(id)) throw refuse(`the policy ${id} is there twice`);
    seen.add(id);
  });
}

function readKeyUsage(value: Buffer, facts: Facts): boolean {
  const [unused = 8, ...bytes] = bodyOf(readOnly(value), TAG_BIT_STRING);
  const isPadded = unused < 8 && (unused === 0 || ((bytes.at(-1) ?? 0xff) & ((1 << unused) - 1)) === 0);
  if (!isPadded) throw refuse("its key usage is no bit string");
  facts.keyUsage = 0;
  for (let bit = 0; bit < 9; bit++) {
    if ((bytes[bit >> 3] ?? 0) & (0x80 >> (bit & 7))) facts.keyUsage |= 1 << bit;
  }
  return true;
}

/** BasicConstraints ::= SEQUENCE { cA BOOLEAN DEFAULT FALSE, pathLenConstraint INTEGER (0..MAX) OPTIONAL }. */
function readBasicConstraints(value: Buffer, facts: Facts): boolean {
  const fields = readInside(readOnly(value), TAG_SEQUENCE);
  const isCa = fields[0]?.tag === TAG_BOOLEAN ? fields.shift() : undefined;
  const pathLength = fields[0]?.tag === TAG_INTEGER ? fields.shift() : undefined;
  if (fields.length > 0) throw refuse("its basic constraints hold more than a flag and a length");
  if (isCa !== undefined) facts.isCa = booleanOf(isCa);
  if (pathLength !== undefined) facts.pathLength = countOf(pathLength);
  return true;
}

function readAlternativeNames(value: Buffer, facts: Facts): boolean {
  for (const element of readInside(readOnly(value), TAG_SEQUENCE)) {
    const name = toGeneralName(element);
    if (name === undefined) continue;
    requireName(name);
    facts.names.push(name);
  }
  return facts.names.length > 0;
}
