// Signatures of tokens (RFC 7515, RFC 7518) by keys as Rego is given them. What NSM itself signs and verifies is in identity.
import {
  constants,
  createHmac,
  createPublicKey,
  type JsonWebKey,
  type KeyObject,
  timingSafeEqual,
  verify,
} from "node:crypto";

interface Algorithm {
  readonly hash: string | null;
  readonly type: "ec" | "rsa" | "ed25519";
  /** Of an elliptic curve: the one that belongs to it. */
  readonly curve?: string;
  readonly how: Readonly<Record<string, unknown>>;
}

const ecdsa = { dsaEncoding: "ieee-p1363" } as const;
const pss = { padding: constants.RSA_PKCS1_PSS_PADDING } as const;

/** By their names in tokens. */
export const algorithms: Readonly<Record<string, Algorithm>> = {
  ES256: { hash: "sha256", type: "ec", curve: "prime256v1", how: ecdsa },
  ES384: { hash: "sha384", type: "ec", curve: "secp384r1", how: ecdsa },
  ES512: { hash: "sha512", type: "ec", curve: "secp521r1", how: ecdsa },
  RS256: { hash: "sha256", type: "rsa", how: {} },
  RS384: { hash: "sha384", type: "rsa", how: {} },
  RS512: { hash: "sha512", type: "rsa", how: {} },
  PS256: { hash: "sha256", type: "rsa", how: pss },
  PS384: { hash: "sha384", type: "rsa", how: pss },
  PS512: { hash: "sha512", type: "rsa", how: pss },
  EdDSA: { hash: null, type: "ed25519", how: {} },
};

const hashesOfSecrets: Readonly<Record<string, string>> = { HS256: "sha256", HS384: "sha384", HS512: "sha512" };

/** What a set of keys says of each. */
export interface VerificationKey {
  readonly key: KeyObject;
  readonly alg?: string | undefined;
  readonly kid?: string | undefined;
}

/** What was signed, and how. */
export interface SignedText {
  readonly signed: string;
  readonly signature: Buffer;
}

/** Of a certificate or a public key as PEM, or of a set of JWKs as JSON. @throws for what is none */
export function verificationKeys(text: string): readonly VerificationKey[] {
  if (text.includes("-----BEGIN")) return [{ key: createPublicKey(text) }];
  const { keys } = JSON.parse(text) as { readonly keys: readonly (JsonWebKey & { alg?: string; kid?: string })[] };
  return keys.map((key) => ({ key: createPublicKey({ key, format: "jwk" }), alg: key.alg, kid: key.kid }));
}

export function isSignedBy(key: KeyObject, algorithm: Algorithm | undefined, token: SignedText): boolean {
  if (!algorithm || key.asymmetricKeyType !== algorithm.type) return false;
  if (algorithm.curve !== undefined && key.asymmetricKeyDetails?.namedCurve !== algorithm.curve) return false;
  return verify(algorithm.hash, Buffer.from(token.signed), { key, ...algorithm.how }, token.signature);
}

export function isSignedWith(secret: string, alg: string, { signed, signature }: SignedText): boolean {
  const hash = hashesOfSecrets[alg];
  if (hash === undefined) return false;
  const mac = createHmac(hash, secret).update(signed).digest();
  return mac.length === signature.length && timingSafeEqual(mac, signature);
}
