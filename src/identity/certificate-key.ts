import {
  bodyOf,
  countOf,
  type DerElement,
  oidOf,
  readInside,
  readOnly,
  TAG_BIT_STRING,
  TAG_INTEGER,
  TAG_SEQUENCE,
} from "./der.ts";

/** A public key as far as the cost of checking a signature with it goes. */
export type KeyKind =
  | { readonly kind: "ec"; readonly curve: string }
  | { readonly kind: "rsa"; readonly modulusBits: number; readonly exponentBits: number }
  | { readonly kind: "ed25519" }
  | { readonly kind: "other"; readonly algorithm: string };

/** What SPIRE and the authorities above it use. Below 2048 bits RSA is weak; Go's crypto/tls reads none above 8192. */
const SHORTEST_RSA_BITS = 2048;
const LONGEST_RSA_BITS = 8192;

/** As in Go's crypto/rsa. An exponent as long as its modulus makes one check take as long as a hundred. */
const LONGEST_EXPONENT_BITS = 31;

const curves: Readonly<Record<string, string>> = {
  "1.2.840.10045.3.1.7": "P-256",
  "1.3.132.0.34": "P-384",
  "1.3.132.0.35": "P-521",
};

const RSA = "1.2.840.113549.1.1.1";
const EC = "1.2.840.10045.2.1";
const ED25519 = "1.3.101.112";
const PSS = "1.2.840.113549.1.1.10";
const MASK = "1.2.840.113549.1.1.8";

/** SHA-256, SHA-384 and SHA-512 with the bytes of their digests. */
const digestBytes: Readonly<Record<string, number>> = {
  "2.16.840.1.101.3.4.2.1": 32,
  "2.16.840.1.101.3.4.2.2": 48,
  "2.16.840.1.101.3.4.2.3": 64,
};

/** ECDSA and RSA (PKCS #1, PSS) with SHA-2, and Ed25519: what Go's crypto/x509 verifies. SHA-1 and MD5 are broken. */
const signatureAlgorithms: ReadonlySet<string> = new Set([
  "1.2.840.10045.4.3.2",
  "1.2.840.10045.4.3.3",
  "1.2.840.10045.4.3.4",
  PSS,
  "1.2.840.113549.1.1.11",
  "1.2.840.113549.1.1.12",
  "1.2.840.113549.1.1.13",
  ED25519,
]);

/**
 * SubjectPublicKeyInfo ::= SEQUENCE { algorithm SEQUENCE { OID, parameters }, subjectPublicKey BIT STRING } (RFC 5280, 4.1;
 * RFC 8017, A.1.1 for RSA). Never decodes a key into numbers: only its size matters.
 * @throws {IdentityError} kind "bad-certificate"
 */
export function readKeyKind(subjectPublicKeyInfo: DerElement | undefined): KeyKind {
  const [algorithm, key] = readInside(subjectPublicKeyInfo, TAG_SEQUENCE);
  const [name, parameters] = readInside(algorithm, TAG_SEQUENCE);
  const id = oidOf(name);
  // Parameters that are no OBJECT IDENTIFIER spell a curve out, and any curve can be spelt out.
  if (id === EC) return { kind: "ec", curve: (parameters?.tag === 0x06 && curves[oidOf(parameters)]) || "unknown" };
  if (id === ED25519) return { kind: "ed25519" };
  if (id !== RSA) return { kind: "other", algorithm: id };
  const [modulus, exponent] = readInside(readOnly(bodyOf(key, TAG_BIT_STRING).subarray(1)), TAG_SEQUENCE);
  return { kind: "rsa", modulusBits: bitsOf(modulus), exponentBits: bitsOf(exponent) };
}

/**
 * AlgorithmIdentifier of a signature: its dotted OBJECT IDENTIFIER. That of PSS says nothing of the hash, which is SHA-1 unless
 * its parameters name another: with any that Go's crypto/x509 does not take either, it is followed by a word.
 */
export function readAlgorithm(algorithm: DerElement | undefined): string {
  const [name, parameters] = readInside(algorithm, TAG_SEQUENCE);
  const id = oidOf(name);
  return id === PSS && !isPssWithSha2(parameters) ? `${PSS} without SHA-2 throughout` : id;
}

/**
 * RSASSA-PSS-params ::= SEQUENCE { hashAlgorithm [0], maskGenAlgorithm [1], saltLength [2], trailerField [3] DEFAULT 1 }
 * (RFC 8017, A.2.3): one hash for both, and a salt as long as its digest.
 */
function isPssWithSha2(parameters: DerElement | undefined): boolean {
  if (parameters?.tag !== TAG_SEQUENCE) return false;
  const fields = readInside(parameters, TAG_SEQUENCE);
  const [hash, mask, salt] = fields;
  if (fields.map(({ tag }) => tag).join() !== "160,161,162" || !hash || !mask || !salt) return false;
  const [maskId, maskHash] = readInside(readOnly(mask.body), TAG_SEQUENCE);
  const digest = oidOf(readInside(readOnly(hash.body), TAG_SEQUENCE)[0]);
  const isOneHash = oidOf(maskId) === MASK && oidOf(readInside(maskHash, TAG_SEQUENCE)[0]) === digest;
  return isOneHash && countOf(readOnly(salt.body)) === digestBytes[digest];
}

/** Why this key is not to check a signature with; undefined when it is fit. */
export function keyProblem(key: KeyKind): string | undefined {
  switch (key.kind) {
    case "ed25519":
      return undefined;
    case "ec":
      return key.curve === "unknown" ? "has a key on a curve other than P-256, P-384 and P-521" : undefined;
    case "other":
      return `has a key of an unknown kind (${key.algorithm})`;
    case "rsa":
      if (key.modulusBits < SHORTEST_RSA_BITS || key.modulusBits > LONGEST_RSA_BITS)
        return `has an RSA key of ${key.modulusBits} bits; ${SHORTEST_RSA_BITS} to ${LONGEST_RSA_BITS} are taken`;
      if (key.exponentBits > LONGEST_EXPONENT_BITS)
        return `has an RSA key with an exponent of ${key.exponentBits} bits; at most ${LONGEST_EXPONENT_BITS} are taken`;
      return undefined;
  }
}

/** Why a signature of this algorithm is not believed; undefined when it may be. */
export function signatureProblem(algorithm: string): string | undefined {
  return signatureAlgorithms.has(algorithm)
    ? undefined
    : `is signed with an algorithm that is not taken (${algorithm})`;
}

/** Bits of an INTEGER that is not negative. */
function bitsOf(integer: DerElement | undefined): number {
  const bytes = bodyOf(integer, TAG_INTEGER);
  const first = bytes.findIndex((byte) => byte !== 0);
  return first === -1 ? 0 : (bytes.length - first) * 8 - Math.clz32(bytes[first] ?? 0) + 24;
}
