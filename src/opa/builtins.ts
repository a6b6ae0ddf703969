// What Rego has and compiled policies ask their host for, as far as NSM's own policies and their like use it:
// https://www.openpolicyagent.org/docs/policy-reference/builtins. Undefined is what Rego calls undefined, as after an error.
import { constants, createPublicKey, type JsonWebKey, type KeyObject, verify } from "node:crypto";
import { splitToken, type TokenParts } from "../identity/index.ts";

export type Builtins = Readonly<Record<string, (...args: unknown[]) => unknown>>;

/** What the library itself brings; version 1.10.0. */
export const ofLibrary = ["json.is_valid", "regex.split", "sprintf", "yaml.is_valid", "yaml.marshal", "yaml.unmarshal"];

const ecdsa = { dsaEncoding: "ieee-p1363" } as const;
const pss = { padding: constants.RSA_PKCS1_PSS_PADDING } as const;
const algorithms = {
  es256: { hash: "sha256", type: "ec", how: ecdsa },
  es384: { hash: "sha384", type: "ec", how: ecdsa },
  es512: { hash: "sha512", type: "ec", how: ecdsa },
  rs256: { hash: "sha256", type: "rsa", how: {} },
  rs384: { hash: "sha384", type: "rsa", how: {} },
  rs512: { hash: "sha512", type: "rsa", how: {} },
  ps256: { hash: "sha256", type: "rsa", how: pss },
  ps384: { hash: "sha384", type: "rsa", how: pss },
  ps512: { hash: "sha512", type: "rsa", how: pss },
} as const;
type Algorithm = (typeof algorithms)[keyof typeof algorithms];

/** @param nowMs the same time throughout one evaluation */
export function builtinsAt(nowMs: number): Builtins {
  const ofTokens = Object.entries(algorithms).map(
    ([name, algorithm]) =>
      [
        `io.jwt.verify_${name}`,
        (token: unknown, keys: unknown) => orUndefined(() => verifies(algorithm, token, keys)),
      ] as const,
  );
  return {
    "io.jwt.decode": (token) =>
      orUndefined(() => {
        const { header, claims, signature } = splitToken(String(token));
        return [header, claims, signature.toString("hex")];
      }),
    ...Object.fromEntries(ofTokens),
    "time.now_ns": () => nowMs * 1e6,
  };
}

/** @param keys a certificate or public key as PEM, or a set of JWKs as JSON: one that verifies it is enough */
function verifies({ hash, type, how }: Algorithm, token: unknown, keys: unknown): boolean {
  const { signed, signature }: TokenParts = splitToken(String(token));
  const fitting = keysOf(String(keys)).filter(({ asymmetricKeyType }) => asymmetricKeyType === type);
  return fitting.some((key) => verify(hash, Buffer.from(signed), { key, ...how }, signature));
}

function keysOf(text: string): readonly KeyObject[] {
  if (text.includes("-----BEGIN")) return [createPublicKey(text)];
  const { keys } = JSON.parse(text) as { readonly keys: readonly JsonWebKey[] };
  return keys.map((key) => createPublicKey({ key, format: "jwk" }));
}

function orUndefined<T>(work: () => T): T | undefined {
  try {
    return work();
  } catch {
    return undefined;
  }
}
