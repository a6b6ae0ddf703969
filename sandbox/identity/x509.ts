import { generateKeyPairSync, type KeyObject, randomBytes, sign } from "node:crypto";
import { type Clock, systemClock } from "../../src/async/index.ts";
import { bitString, bool, context, explicit, integer, octetString, oid, sequence, set, time, utf8 } from "./der.ts";

/** A certificate with its key, in every form that a peer may ask for. */
export interface TestCertificate {
  /** Leaf first, then the intermediates; the root is left out, as SPIRE does. */
  readonly chainDer: readonly Buffer[];
  /** `chainDer` one after the other: the `x509_svid` field of the Workload API. */
  readonly certChainDer: Buffer;
  /** `chainDer` as PEM. */
  readonly certPem: string;
  readonly keyPem: string;
  /** PKCS#8: the `x509_svid_key` field of the Workload API. */
  readonly keyDer: Buffer;
}

/** What a leaf says. Everything but the SPIFFE ID has a sensible value; odd ones are for tests of the verification. */
export interface IssueOptions {
  readonly spiffeId: string;
  /** Milliseconds since 1970; one minute ago by default. */
  readonly notBeforeMs?: number;
  /** Milliseconds since 1970; in one hour by default. */
  readonly notAfterMs?: number;
  /** URI names in place of `spiffeId` alone: none or two make it no SVID. */
  readonly uris?: readonly string[];
  /** DNS names, as servers of the web have them. */
  readonly hosts?: readonly string[];
  /** Sets the CA flag on the leaf. */
  readonly isCa?: boolean;
  /** keyUsage bits; `["digitalSignature"]` by default. */
  readonly keyUsage?: readonly KeyUsage[];
  /** Key of the leaf; P-256 by default: the only one that NSM tokens can be signed with. */
  readonly keyKind?: "p256" | "p384" | "rsa";
}

type KeyUsage = "digitalSignature" | "keyEncipherment" | "keyAgreement" | "keyCertSign" | "cRLSign";

/** A certificate authority of one trust domain, alive in memory only. */
export interface TestCa {
  readonly trustDomain: string;
  /** The root certificate: the `bundle` field of the Workload API. */
  readonly rootDer: Buffer;
  readonly rootPem: string;
  issue(options: IssueOptions): TestCertificate;
  /** An authority below this one, whose leaves bring its certificate along. */
  intermediate(): TestCa;
}

const HOUR_MS = 3_600_000;
const ecdsaWithSha256 = sequence(oid("1.2.840.10045.4.3.2"));
/** Position in the BIT STRING of RFC 5280, 4.2.1.3. */
const keyUsageBits: Record<KeyUsage, number> = {
  digitalSignature: 0,
  keyEncipherment: 2,
  keyAgreement: 4,
  keyCertSign: 5,
  cRLSign: 6,
};

interface Authority {
  readonly subject: Buffer;
  readonly key: KeyObject;
  /** Certificates between a leaf of this authority and the root. */
  readonly chain: readonly Buffer[];
}

/** What all authorities under one root share. */
interface Root {
  readonly trustDomain: string;
  readonly rootDer: Buffer;
  readonly clock: Pick<Clock, "now">;
}

/** Makes a root for `trustDomain` ("example.org"), valid for a day around now. */
export function createTestCa(trustDomain: string, clock: Pick<Clock, "now"> = systemClock): TestCa {
  const { privateKey, publicKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const subject = name(`${trustDomain} root ${randomBytes(4).toString("hex")}`);
  const root = certificate({
    issuer: subject,
    signer: privateKey,
    subject,
    publicKey,
    ...caContents(trustDomain, clock),
  });
  return authority({ trustDomain, rootDer: root, clock }, { subject, key: privateKey, chain: [] });
}

function authority({ trustDomain, rootDer, clock }: Root, self: Authority): TestCa {
  return {
    trustDomain,
    rootDer,
    rootPem: pem("CERTIFICATE", rootDer),
    issue(options) {
      const { privateKey, publicKey } = generateKey(options.keyKind ?? "p256");
      const now = clock.now();
      const leaf = certificate({
        issuer: self.subject,
        signer: self.key,
        subject: name("sandbox"),
        publicKey,
        notBeforeMs: options.notBeforeMs ?? now - 60_000,
        notAfterMs: options.notAfterMs ?? now + HOUR_MS,
        uris: options.uris ?? [options.spiffeId],
        hosts: options.hosts ?? [],
        isCa: options.isCa ?? false,
        keyUsage: options.keyUsage ?? ["digitalSignature"],
      });
      return bundle([leaf, ...self.chain], privateKey);
    },
    intermediate() {
      const { privateKey, publicKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
      const subject = name(`${trustDomain} intermediate ${randomBytes(4).toString("hex")}`);
      const contents = caContents(trustDomain, clock);
      const der = certificate({ issuer: self.subject, signer: self.key, subject, publicKey, ...contents });
      return authority({ trustDomain, rootDer, clock }, { subject, key: privateKey, chain: [der, ...self.chain] });
    },
  };
}

function caContents(trustDomain: string, clock: Pick<Clock, "now">) {
  const now = clock.now();
  return {
    notBeforeMs: now - 12 * HOUR_MS,
    notAfterMs: now + 12 * HOUR_MS,
    uris: [`spiffe://${trustDomain}`],
    isCa: true,
    keyUsage: ["keyCertSign", "cRLSign"] as const,
  };
}

function generateKey(kind: "p256" | "p384" | "rsa") {
  if (kind === "rsa") return generateKeyPairSync("rsa", { modulusLength: 2048 });
  return generateKeyPairSync("ec", { namedCurve: kind === "p256" ? "P-256" : "P-384" });
}

function bundle(chainDer: readonly Buffer[], key: KeyObject): TestCertificate {
  return {
    chainDer,
    certChainDer: Buffer.concat(chainDer),
    certPem: chainDer.map((der) => pem("CERTIFICATE", der)).join(""),
    keyPem: key.export({ type: "pkcs8", format: "pem" }).toString(),
    keyDer: key.export({ type: "pkcs8", format: "der" }),
  };
}

interface Contents {
  readonly issuer: Buffer;
  readonly signer: KeyObject;
  readonly subject: Buffer;
  readonly publicKey: KeyObject;
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
  readonly uris: readonly string[];
  readonly hosts?: readonly string[];
  readonly isCa: boolean;
  readonly keyUsage: readonly KeyUsage[];
}

/** Certificate ::= SEQUENCE { tbsCertificate, signatureAlgorithm, signatureValue } (RFC 5280, 4.1). */
function certificate(contents: Contents): Buffer {
  const serial = randomBytes(16);
  serial[0] = (serial.readUInt8(0) & 0x7f) | 0x40; // positive, and never a leading zero byte
  const toBeSigned = sequence(
    explicit(0, integer(Buffer.of(2))), // version 3
    integer(serial),
    ecdsaWithSha256,
    contents.issuer,
    sequence(time(contents.notBeforeMs), time(contents.notAfterMs)),
    contents.subject,
    contents.publicKey.export({ type: "spki", format: "der" }),
    explicit(3, sequence(...extensions(contents))),
  );
  return sequence(toBeSigned, ecdsaWithSha256, bitString(sign("sha256", toBeSigned, contents.signer)));
}

function extensions(contents: Contents): Buffer[] {
  const names = [
    ...contents.uris.map((uri) => context(6, Buffer.from(uri))),
    ...(contents.hosts ?? []).map((host) => context(2, Buffer.from(host))),
  ];
  return [
    extension("2.5.29.19", contents.isCa ? sequence(bool(true)) : sequence()), // basicConstraints
    extension("2.5.29.15", keyUsageString(contents.keyUsage)),
    ...(contents.isCa ? [] : [extension("2.5.29.37", extendedKeyUsage())]),
    ...(names.length > 0 ? [extension("2.5.29.17", sequence(...names))] : []), // subjectAltName
  ];
}

function extension(id: string, value: Buffer): Buffer {
  return sequence(oid(id), bool(true), octetString(value));
}

function keyUsageString(usages: readonly KeyUsage[]): Buffer {
  const byte = usages.reduce((bits, usage) => bits | (0x80 >> keyUsageBits[usage]), 0);
  return bitString(Buffer.of(byte), byte === 0 ? 0 : 31 - Math.clz32(byte & -byte)); // a named-bit list ends with its last 1
}

/** serverAuth and clientAuth: an SVID is used for both. */
function extendedKeyUsage(): Buffer {
  return sequence(oid("1.3.6.1.5.5.7.3.1"), oid("1.3.6.1.5.5.7.3.2"));
}

function name(commonName: string): Buffer {
  return sequence(set(sequence(oid("2.5.4.3"), utf8(commonName))));
}

function pem(label: string, der: Buffer): string {
  const lines = der.toString("base64").match(/.{1,64}/g) ?? [];
  return `-----BEGIN ${label}-----\n${lines.join("\n")}\n-----END ${label}-----\n`;
}
