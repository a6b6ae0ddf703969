import { type KeyObject, sign, verify } from "node:crypto";
import { IdentityError } from "./error.ts";
import type { Svid } from "./read-svid.ts";

/** A token of ours and its time: one number for the claim, the header and the path. */
export interface IssuedToken {
  readonly token: string;
  /** Milliseconds since 1970; a whole second: exactly what the `exp` claim says (W7). */
  readonly expiresMs: number;
}

interface TokenOptions {
  /** SPIFFE ID of the peer the token is for; without one the token names no audience. */
  readonly audience?: string;
  readonly lifetimeMs: number;
  /** A token is of no use beyond the peer's certificate either. */
  readonly peerNotAfterMs?: number;
  readonly nowMs: number;
  /** Why our SVID is not renewed, where that is known. */
  readonly problem?: string | undefined;
}

/** What a token says about itself. Nothing of it is proven before its signature is. */
export interface TokenClaims {
  readonly sub: string;
  readonly aud: readonly string[];
  /** Milliseconds since 1970. */
  readonly expMs: number;
}

/** A token in its three parts: claims not yet read, signature not yet verified. */
export interface TokenParts {
  readonly header: Readonly<Record<string, unknown>>;
  readonly claims: Readonly<Record<string, unknown>>;
  readonly signature: Buffer;
  /** The bytes that the signature is over. */
  readonly signed: string;
}

/** In bytes, which are characters here. Tokens of NSM peers have 300 to 500. A path holds many, and each is decoded at every call. */
export const LONGEST_TOKEN_BYTES = 8192;

/** The last second of the year 9999: where protobuf's Timestamp ends. */
const LATEST_SECONDS = 253_402_300_799;

const encodedHeader = encode({ alg: "ES256", typ: "JWT" });

/**
 * Signs a token with the key of our SVID (ES256).
 * @throws {IdentityError} kind "expired" when our SVID or the peer's certificate leaves no time
 */
export function issueToken(svid: Pick<Svid, "id" | "key" | "notAfterMs">, options: TokenOptions): IssuedToken {
  const { audience, lifetimeMs, nowMs, problem, peerNotAfterMs = Number.POSITIVE_INFINITY } = options;
  const exp = Math.floor(Math.min(nowMs + lifetimeMs, svid.notAfterMs, peerNotAfterMs) / 1000);
  if (exp * 1000 <= nowMs) {
    const isOurs = svid.notAfterMs <= peerNotAfterMs;
    const what = isOurs ? `our own SVID ${svid.id}` : `the certificate of ${audience ?? "the peer"}`;
    const atMs = Math.min(svid.notAfterMs, peerNotAfterMs);
    throw new IdentityError({ kind: "expired", what, atMs, ...(isOurs && problem && { problem }) });
  }
  // golang-jwt writes `aud` as an array always, and the chaining policy reads nothing else.
  const claims = { sub: svid.id, ...(audience === undefined ? {} : { aud: [audience] }), exp };
  const signed = `${encodedHeader}.${encode(claims)}`;
  const signature = sign("sha256", Buffer.from(signed), { key: svid.key, dsaEncoding: "ieee-p1363" });
  return { token: `${signed}.${signature.toString("base64url")}`, expiresMs: exp * 1000 };
}

/**
 * Takes a compact JWS apart: three parts of base64url without padding, the first two JSON objects.
 * @throws {IdentityError} kind "bad-token"
 */
export function splitToken(text: string): TokenParts {
  if (text === "") throw badToken("it is empty");
  if (text.length > LONGEST_TOKEN_BYTES)
    throw badToken(`${text.length} characters, at most ${LONGEST_TOKEN_BYTES} are read`);
  const [header, claims, signature, ...more] = text.split(".");
  if (header === undefined || claims === undefined || signature === undefined || more.length > 0) {
    throw badToken("it has not exactly three parts");
  }
  return {
    header: decodeObject(header, "header"),
    claims: decodeObject(claims, "claims"),
    signature: decode(signature, "signature"),
    signed: `${header}.${claims}`,
  };
}

/**
 * The claims that NSM uses, without verifying the signature.
 * @throws {IdentityError} kind "bad-token" also when `sub`, `exp` or `aud` has another form than golang-jwt writes
 */
export function decodeToken(text: string): TokenClaims {
  return readClaims(splitToken(text));
}

function readClaims(token: TokenParts): TokenClaims {
  const sub = subjectOf(token);
  const aud = audienceOf(token);
  const expMs = expiryOf(token);
  if (sub === undefined) throw badToken('its "sub" is no text');
  if (aud === undefined) throw badToken('its "aud" is no array of texts');
  if (expMs === undefined) throw badToken('its "exp" is no time');
  return { sub, aud, expMs };
}

/** The `sub` claim; undefined when it is no text. */
export function subjectOf({ claims: { sub } }: TokenParts): string | undefined {
  return typeof sub === "string" && sub !== "" ? sub : undefined;
}

/** The `exp` claim in ms since 1970, fractions of a second included; undefined when it is no number, or no time. */
export function expiryOf({ claims: { exp } }: TokenParts): number | undefined {
  // Of another type it would compare greater than any number in Rego.
  return typeof exp === "number" && exp >= 0 && exp <= LATEST_SECONDS ? exp * 1000 : undefined;
}

/** The `aud` claim, empty when it is left out; undefined for a lone text, which the chaining policy does not read. */
export function audienceOf({ claims: { aud } }: TokenParts): readonly string[] | undefined {
  if (aud === undefined) return [];
  return Array.isArray(aud) && aud.every((one) => typeof one === "string") ? aud : undefined;
}

/** Whether the token is ES256 and signed by the holder of this P-256 key. */
export function isSignedBy(token: TokenParts, publicKey: KeyObject): boolean {
  if (token.header["alg"] !== "ES256" || token.signature.length !== 64) return false;
  if (publicKey.asymmetricKeyType !== "ec") return false;
  if (publicKey.asymmetricKeyDetails?.namedCurve !== "prime256v1") return false;
  return verify("sha256", Buffer.from(token.signed), { key: publicKey, dsaEncoding: "ieee-p1363" }, token.signature);
}

function encode(value: unknown): string {
  return Buffer.from(JSON.stringify(value)).toString("base64url");
}

function decode(part: string, what: string): Buffer {
  // Buffer's own base64url reader skips what it does not know.
  if (!/^[A-Za-z0-9_-]*$/.test(part) || part.length % 4 === 1) throw badToken(`its ${what} is no base64url`);
  return Buffer.from(part, "base64url");
}

function decodeObject(part: string, what: string): Readonly<Record<string, unknown>> {
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(decode(part, what)));
  } catch (error) {
    if (error instanceof IdentityError) throw error;
    throw new IdentityError({ kind: "bad-token", problem: `its ${what} is no JSON` }, { cause: error });
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) throw badToken(`its ${what} is no object`);
  return value as Readonly<Record<string, unknown>>;
}

function badToken(problem: string): IdentityError {
  return new IdentityError({ kind: "bad-token", problem });
}
