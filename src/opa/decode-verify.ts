// Rego's io.jwt.decode_verify, in the order in which OPA has it (v1/topdown/tokens.go):
// https://www.openpolicyagent.org/docs/policy-reference/builtins/tokens
import { splitToken, type TokenParts } from "../identity/index.ts";
import { algorithms, isSignedBy, isSignedWith, type VerificationKey, verificationKeys } from "./signatures.ts";

interface Constraints {
  readonly keys: readonly VerificationKey[] | undefined;
  readonly secret: string;
  readonly alg: string;
  readonly iss: string;
  readonly aud: string;
  readonly nowSeconds: number;
}

interface Header {
  readonly alg: string;
  readonly kid: string;
}

type Verdict = readonly [valid: boolean, header: unknown, claims: unknown];

const NOT_VALID: Verdict = [false, {}, {}];
const KNOWN = ["cert", "secret", "alg", "iss", "aud", "time"];
const KNOWN_HEADERS = ["alg", "kid", "typ", "cty", "crit"];

/**
 * Whether the token is signed as it must be, and says what it must, and the token taken apart.
 * @throws for what OPA calls an error: a token that is none, or constraints that make no sense. A token within a token is none here.
 */
export function decodeVerify(token: unknown, constraints: unknown, nowMs: number): Verdict {
  const must = constraintsOf(constraints, nowMs);
  const parts = splitToken(String(token));
  const header = headerOf(parts.header);
  if (!header || (must.alg !== "" && must.alg !== header.alg)) return NOT_VALID;
  if (!isSigned(must, header, parts)) return NOT_VALID;
  return hasClaims(must, parts.claims) ? [true, parts.header, parts.claims] : NOT_VALID;
}

/** What is not known is an error: to pass over it would verify less than the policy says. */
function constraintsOf(given: unknown, nowMs: number): Constraints {
  const all = given as Readonly<Record<string, unknown>>;
  const unknown = Object.keys(all).find((name) => !KNOWN.includes(name));
  if (unknown !== undefined) throw new TypeError(`unknown token validation constraint: ${unknown}`);
  const { time = nowMs * 1e6 } = all;
  if (typeof time !== "number" || time < 0) throw new TypeError("token time constraint: must be a number");
  const cert = all["cert"] === undefined ? undefined : textOf(all["cert"]);
  const secret = textOf(all["secret"]);
  if ((cert === undefined) === (secret === "")) throw new TypeError("want one of cert and secret");
  const keys = cert === undefined ? undefined : verificationKeys(cert);
  const [alg, iss, aud] = [textOf(all["alg"]), textOf(all["iss"]), textOf(all["aud"])];
  return { keys, secret, alg, iss, aud, nowSeconds: time / 1e9 };
}

/** Undefined for one that must not be accepted: without an algorithm, or with something critical that is not known. */
function headerOf(header: TokenParts["header"]): Header | undefined {
  const [alg, kid, crit] = [textOf(header["alg"]), textOf(header["kid"]), header["crit"] ?? []];
  if (!Array.isArray(crit)) throw new TypeError("crit: must be a list");
  const isKnown = (name: unknown) => KNOWN_HEADERS.includes(String(name)) || !(String(name) in header);
  return alg !== "" && crit.every(isKnown) ? { alg, kid } : undefined;
}

/** By the key of the token's name alone, if there is one; else by any that is not for another algorithm. */
function isSigned({ keys, secret }: Constraints, { alg, kid }: Header, token: TokenParts): boolean {
  if (!keys) return isSignedWith(secret, alg, token);
  const named = kid === "" ? undefined : keys.find((one) => one.kid === kid);
  const fitting = named ? [named] : keys.filter((one) => (one.alg ?? alg) === alg);
  return fitting.some(({ key }) => isSignedBy(key, algorithms[alg], token));
}

function hasClaims({ iss, aud, nowSeconds }: Constraints, claims: TokenParts["claims"]): boolean {
  const { iss: issuer, aud: audience, exp, nbf } = claims;
  for (const time of [exp, nbf]) {
    if (time !== undefined && typeof time !== "number") throw new TypeError("exp and nbf must be numbers");
  }
  return (
    (iss === "" || issuer === iss) &&
    // A token for a certain audience is for no other, nor for one that does not say who it is.
    (audience === undefined ? aud === "" : [audience].flat().includes(aud)) &&
    (exp === undefined || nowSeconds < Number(exp)) &&
    (nbf === undefined || nowSeconds >= Number(nbf))
  );
}

/** @throws {TypeError} for what is there and no text */
function textOf(value: unknown): string {
  if (value !== undefined && typeof value !== "string") throw new TypeError("a constraint or header must be a text");
  return value ?? "";
}
