// What Rego has and compiled policies ask their host for, as far as NSM's own policies and their like use it:
// https://www.openpolicyagent.org/docs/policy-reference/builtins. Undefined is what Rego calls undefined, as after an error.
import { splitToken } from "../identity/index.ts";
import { decodeVerify } from "./decode-verify.ts";
import { algorithms, isSignedBy, verificationKeys } from "./signatures.ts";

export type Builtins = Readonly<Record<string, (...args: unknown[]) => unknown>>;

/** What the library itself brings; version 1.10.0. */
export const ofLibrary = ["json.is_valid", "regex.split", "sprintf", "yaml.is_valid", "yaml.marshal", "yaml.unmarshal"];

/** @param nowMs the same time throughout one evaluation */
export function builtinsAt(nowMs: number): Builtins {
  const ofTokens = Object.entries(algorithms).map(
    ([name, algorithm]) =>
      [
        `io.jwt.verify_${name.toLowerCase()}`,
        (token: unknown, keys: unknown) => orUndefined(() => verifies(algorithm, token, keys)),
      ] as const,
  );
  return {
    "io.jwt.decode": (token) =>
      orUndefined(() => {
        const { header, claims, signature } = splitToken(String(token));
        return [header, claims, signature.toString("hex")];
      }),
    "io.jwt.decode_verify": (token, constraints) => orUndefined(() => decodeVerify(token, constraints, nowMs)),
    ...Object.fromEntries(ofTokens),
    "time.now_ns": () => nowMs * 1e6,
  };
}

/** One key that verifies it is enough. */
function verifies(algorithm: (typeof algorithms)[string], token: unknown, keys: unknown): boolean {
  const parts = splitToken(String(token));
  return verificationKeys(String(keys)).some(({ key }) => isSignedBy(key, algorithm, parts));
}

function orUndefined<T>(work: () => T): T | undefined {
  try {
    return work();
  } catch {
    return undefined;
  }
}
