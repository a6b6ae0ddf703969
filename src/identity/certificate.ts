import { X509Certificate } from "node:crypto";
import {
  bodyOf,
  type DerElement,
  oidOf,
  readElements,
  readInside,
  TAG_BIT_STRING,
  TAG_BOOLEAN,
  TAG_INTEGER,
  TAG_OCTET_STRING,
  TAG_SEQUENCE,
} from "./der.ts";
import { IdentityError } from "./error.ts";

/** Bits of KeyUsage in the order of RFC 5280, 4.2.1.3, first bit lowest. */
export const KEY_USAGE = { digitalSignature: 1 << 0, keyCertSign: 1 << 5, crlSign: 1 << 6 } as const;

/** A certificate and what Node's own reading of it does not tell, or tells otherwise than go-spiffe sees it. */
export interface Certificate {
  readonly x509: X509Certificate;
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
  /** The CA flag of basicConstraints alone. `X509Certificate.ca` is false for a CA without keyCertSign. */
  readonly isCa: boolean;
  /** How many authorities may stand below this one; undefined: any number. */
  readonly pathLength: number | undefined;
  /** `KEY_USAGE` bits; undefined when the extension is missing. Node shows only the extended usages. */
  readonly keyUsage: number | undefined;
  /** URI subject alternative names, byte for byte. Node's text form of them is quoted and escaped. */
  readonly uris: readonly string[];
  /** Hosts that URIs of certificates below this one must lie in, or must not. */
  readonly uriConstraints: { readonly permitted: readonly string[]; readonly excluded: readonly string[] };
  /** Critical extensions that nothing here understands: RFC 5280 wants such a certificate refused. */
  readonly unknownCritical: readonly string[];
}

/** @throws {IdentityError} kind "bad-certificate" */
export function readCertificate(der: Buffer): Certificate {
  const x509 = parse(der);
  const facts: Facts = { isCa: false, uris: [], uriConstraints: { permitted: [], excluded: [] }, unknownCritical: [] };
  for (const extension of extensionsOf(der)) readExtension(extension, facts);
  return {
    x509,
    notBeforeMs: x509.validFromDate.getTime(),
    notAfterMs: x509.validToDate.getTime(),
    pathLength: undefined,
    keyUsage: undefined,
    ...facts,
  };
}

/** The certificates of a field of the Workload API: DER, one after the other, nothing between. */
export function readCertificates(der: Buffer): Certificate[] {
  return readElements(der).map((element) => readCertificate(element.whole));
}

interface Facts {
  isCa: boolean;
  pathLength?: number;
  keyUsage?: number;
  uris: string[];
  uriConstraints: { permitted: string[]; excluded: string[] };
  unknownCritical: string[];
}

function parse(der: Buffer): X509Certificate {
  try {
    return new X509Certificate(der);
  } catch (error) {
    throw new IdentityError({ kind: "bad-certificate", problem: "it is no X.509 in DER" }, { cause: error });
  }
}

/** Certificate ::= SEQUENCE { TBSCertificate, … }; TBSCertificate ends with extensions [3] EXPLICIT (RFC 5280, 4.1). */
function extensionsOf(der: Buffer): DerElement[] {
  const [certificate, ...more] = readElements(der);
  if (more.length > 0) throw new IdentityError({ kind: "bad-certificate", problem: "bytes follow the certificate" });
  const [toBeSigned] = readInside(certificate, TAG_SEQUENCE);
  const extensions = readInside(toBeSigned, TAG_SEQUENCE).find((element) => element.tag === 0xa3);
  if (extensions === undefined) return [];
  const [list] = readElements(extensions.body);
  return readInside(list, TAG_SEQUENCE);
}

/** Extension ::= SEQUENCE { extnID, critical DEFAULT FALSE, extnValue OCTET STRING }. */
function readExtension(extension: DerElement, facts: Facts): void {
  const [id, ...rest] = readInside(extension, TAG_SEQUENCE);
  const isCritical = rest[0]?.tag === TAG_BOOLEAN && rest[0].body[0] !== 0;
  const value = bodyOf(rest.at(-1), TAG_OCTET_STRING);
  const name = oidOf(id);
  const read = readers[name];
  if (read !== undefined) read(value, facts);
  else if (isCritical) facts.unknownCritical.push(name);
}

const readers: Readonly<Record<string, (value: Buffer, facts: Facts) => void>> = {
  "2.5.29.15": readKeyUsage,
  "2.5.29.17": readAlternativeNames,
  "2.5.29.19": readBasicConstraints,
  "2.5.29.30": readNameConstraints,
  "2.5.29.37": () => {}, // extendedKeyUsage: go-spiffe takes any
};

function readKeyUsage(value: Buffer, facts: Facts): void {
  const [bits] = readElements(value);
  const bytes = bodyOf(bits, TAG_BIT_STRING).subarray(1); // the first byte counts unused bits
  facts.keyUsage = 0;
  for (let bit = 0; bit < 9; bit++) {
    if ((bytes[bit >> 3] ?? 0) & (0x80 >> (bit & 7))) facts.keyUsage |= 1 << bit;
  }
}

function readBasicConstraints(value: Buffer, facts: Facts): void {
  const [constraints] = readElements(value);
  for (const element of readInside(constraints, TAG_SEQUENCE)) {
    if (element.tag === TAG_BOOLEAN) facts.isCa = element.body[0] !== 0;
    if (element.tag === TAG_INTEGER) facts.pathLength = element.body.reduce((sum, byte) => sum * 256 + byte, 0);
  }
}

/** GeneralName: uniformResourceIdentifier [6] IMPLICIT IA5String. */
const TAG_URI = 0x86;

function readAlternativeNames(value: Buffer, facts: Facts): void {
  const [names] = readElements(value);
  for (const name of readInside(names, TAG_SEQUENCE)) {
    if (name.tag === TAG_URI) facts.uris.push(name.body.toString("latin1"));
  }
}

/** NameConstraints ::= SEQUENCE { permittedSubtrees [0], excludedSubtrees [1] }. Only URIs carry identity here. */
function readNameConstraints(value: Buffer, facts: Facts): void {
  const [constraints] = readElements(value);
  for (const side of readInside(constraints, TAG_SEQUENCE)) {
    const hosts = side.tag === 0xa0 ? facts.uriConstraints.permitted : facts.uriConstraints.excluded;
    for (const subtree of readElements(side.body)) {
      const [base] = readInside(subtree, TAG_SEQUENCE);
      if (base?.tag === TAG_URI) hosts.push(base.body.toString("latin1"));
    }
  }
}
