// Certificates with whatever in them, written by a library that the forwarder does not use: one hand writes, another reads.
import { constants, generateKeyPairSync, type KeyObject, randomBytes, sign } from "node:crypto";
import { AsnConvert, OctetString } from "@peculiar/asn1-schema";
import {
  AlgorithmIdentifier,
  AttributeTypeAndValue,
  AttributeValue,
  BasicConstraints,
  Certificate,
  Extension,
  Extensions,
  GeneralName,
  GeneralSubtree,
  GeneralSubtrees,
  KeyUsage,
  KeyUsageFlags,
  Name,
  NameConstraints,
  RelativeDistinguishedName,
  SubjectAlternativeName,
  SubjectPublicKeyInfo,
  TBSCertificate,
  Validity,
  Version,
} from "@peculiar/asn1-x509";
import { systemClock } from "../../src/async/index.ts";

/** A certificate and what it takes to issue below it. */
export interface OddCertificate {
  readonly der: Buffer;
  readonly subject: string;
  readonly key: KeyObject;
}

/** What stands in a certificate. An authority in good order, valid for an hour around now, by default. */
export interface OddContents {
  readonly subject: string;
  /** Signs; the certificate itself by default. */
  readonly issuer?: Pick<OddCertificate, "subject" | "key">;
  readonly key?: { readonly privateKey: KeyObject; readonly publicKey: KeyObject };
  /** SubjectPublicKeyInfo in place of the key's own. */
  readonly publicKeyDer?: Buffer;
  /** False leaves the flag out, undefined the whole extension. */
  readonly isCa?: boolean | undefined;
  readonly pathLength?: number;
  /** Undefined leaves the extension out. */
  readonly keyUsage?: number | undefined;
  readonly uris?: readonly string[];
  readonly constraints?: { readonly permitted?: readonly string[]; readonly excluded?: readonly string[] };
  /** Further extensions, by identifier; the value in DER. */
  readonly extensions?: readonly { readonly id: string; readonly isCritical: boolean; readonly value: Uint8Array }[];
  readonly notBeforeMs?: number;
  readonly notAfterMs?: number;
  readonly hash?: "sha1" | "sha256" | "sha384" | "sha512";
  /** Of a signature with RSA-PSS, in DER. */
  readonly pssParameters?: Uint8Array;
}

const HOUR_MS = 3_600_000;

/** Identifiers of signature algorithms (RFC 5758; RFC 8017). */
const algorithms = {
  ec: {
    sha1: "1.2.840.10045.4.1",
    sha256: "1.2.840.10045.4.3.2",
    sha384: "1.2.840.10045.4.3.3",
    sha512: "1.2.840.10045.4.3.4",
  },
  rsa: {
    sha1: "1.2.840.113549.1.1.5",
    sha256: "1.2.840.113549.1.1.11",
    sha384: "1.2.840.113549.1.1.12",
    sha512: "1.2.840.113549.1.1.13",
  },
} as const;

const PSS = "1.2.840.113549.1.1.10";

/** Issues a certificate with these contents, whether or not they make sense. */
export function makeOddCertificate(contents: OddContents): OddCertificate {
  const key = contents.key ?? generateKeyPairSync("ec", { namedCurve: "P-256" });
  const issuer = contents.issuer ?? { subject: contents.subject, key: key.privateKey };
  const hash = contents.hash ?? "sha256";
  const kind = issuer.key.asymmetricKeyType === "rsa" ? "rsa" : "ec";
  const pss = contents.pssParameters;
  const signature = new AlgorithmIdentifier(
    pss ? { algorithm: PSS, parameters: arrayOf(pss) } : { algorithm: algorithms[kind][hash] },
  );
  const now = systemClock.now();
  const publicKey = contents.publicKeyDer ?? key.publicKey.export({ type: "spki", format: "der" });
  const toBeSigned = new TBSCertificate({
    version: Version.v3,
    serialNumber: arrayOf(Buffer.concat([Buffer.of(0x40), randomBytes(15)])),
    signature,
    issuer: nameOf(issuer.subject),
    validity: new Validity({
      notBefore: new Date(contents.notBeforeMs ?? now - HOUR_MS),
      notAfter: new Date(contents.notAfterMs ?? now + HOUR_MS),
    }),
    subject: nameOf(contents.subject),
    subjectPublicKeyInfo: AsnConvert.parse(publicKey, SubjectPublicKeyInfo),
    extensions: new Extensions(extensionsOf(contents)),
  });
  const padding = pss ? { padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: constants.RSA_PSS_SALTLEN_DIGEST } : {};
  const signed = sign(hash, Buffer.from(AsnConvert.serialize(toBeSigned)), { key: issuer.key, ...padding });
  const whole = new Certificate({
    tbsCertificate: toBeSigned,
    signatureAlgorithm: signature,
    signatureValue: arrayOf(signed),
  });
  return { der: Buffer.from(AsnConvert.serialize(whole)), subject: contents.subject, key: key.privateKey };
}

function extensionsOf(contents: OddContents): Extension[] {
  const { isCa = true, pathLength, uris, constraints } = contents;
  const usage = "keyUsage" in contents ? contents.keyUsage : KeyUsageFlags.keyCertSign | KeyUsageFlags.cRLSign;
  const written: Extension[] = [];
  const add = (id: string, isCritical: boolean, value: ArrayBuffer) =>
    void written.push(new Extension({ extnID: id, critical: isCritical, extnValue: new OctetString(value) }));
  if (!("isCa" in contents && contents.isCa === undefined)) {
    const basic = new BasicConstraints({
      cA: isCa,
      ...(pathLength === undefined ? {} : { pathLenConstraint: pathLength }),
    });
    add("2.5.29.19", true, AsnConvert.serialize(basic));
  }
  if (usage !== undefined) add("2.5.29.15", true, AsnConvert.serialize(new KeyUsage(usage)));
  if (uris !== undefined) {
    const names = uris.map((uri) => new GeneralName({ uniformResourceIdentifier: uri }));
    add("2.5.29.17", false, AsnConvert.serialize(new SubjectAlternativeName(names)));
  }
  if (constraints !== undefined) {
    const { permitted, excluded } = constraints;
    const value = new NameConstraints({
      ...(permitted ? { permittedSubtrees: subtreesOf(permitted) } : {}),
      ...(excluded ? { excludedSubtrees: subtreesOf(excluded) } : {}),
    });
    add("2.5.29.30", true, AsnConvert.serialize(value));
  }
  for (const { id, isCritical, value } of contents.extensions ?? []) add(id, isCritical, arrayOf(value));
  return written;
}

function subtreesOf(hosts: readonly string[]): GeneralSubtrees {
  const bases = hosts.map((host) => new GeneralName({ uniformResourceIdentifier: host }));
  return new GeneralSubtrees(bases.map((base) => new GeneralSubtree({ base })));
}

function nameOf(commonName: string): Name {
  const value = new AttributeValue({ utf8String: commonName });
  return new Name([new RelativeDistinguishedName([new AttributeTypeAndValue({ type: "2.5.4.3", value })])]);
}

function arrayOf(bytes: Uint8Array): ArrayBuffer {
  return new Uint8Array(bytes).buffer;
}
