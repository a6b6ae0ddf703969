import { type KeyObject, sign, verify, X509Certificate } from "node:crypto";
import { jwtVerify } from "jose";

/** A token as NSM peers show it to each other (nsm-protocol §5.1): who signed, for whom, until when. */
export interface PeerToken {
  readonly token: string;
  /** When it expires, in ms since 1970; whole seconds. */
  readonly expiresMs: number;
}

export interface TokenClaims {
  readonly subject: string;
  /** SPIFFE ID of who is to read it; left out as long as the peer is unknown. */
  readonly audience: string | undefined;
  readonly expiresMs: number;
}

/** Signs a token with ES256. Synchronous, because the headers of a call are asked for while it is written. */
export function signToken(key: KeyObject, claims: TokenClaims): PeerToken {
  const exp = Math.floor(claims.expiresMs / 1000);
  const body = { sub: claims.subject, exp, ...(claims.audience === undefined ? {} : { aud: [claims.audience] }) };
  const signed = [{ alg: "ES256", typ: "JWT" }, body]
    .map((part) => Buffer.from(JSON.stringify(part)).toString("base64url"))
    .join(".");
  const signature = sign("sha256", Buffer.from(signed), { key, dsaEncoding: "ieee-p1363" }); // r and s, RFC 7518 §3.4
  return { token: `${signed}.${signature.toString("base64url")}`, expiresMs: exp * 1000 };
}

/** The two headers that go with every call (nsm-protocol §5.3). */
export function headersOfToken({ token, expiresMs }: PeerToken): Readonly<Record<string, string>> {
  return { "nsm-client-token": token, "nsm-client-token-expires": new Date(expiresMs).toISOString() };
}

/** The token of the headers; undefined unless both are there exactly once and readable. */
export function tokenOfHeaders(metadata: ReadonlyMap<string, readonly string[]>): PeerToken | undefined {
  const tokens = metadata.get("nsm-client-token") ?? [];
  const expiries = metadata.get("nsm-client-token-expires") ?? [];
  const expiresMs = Date.parse(expiries[0] ?? "");
  const token = tokens[0];
  if (token === undefined || tokens.length !== 1 || expiries.length !== 1 || Number.isNaN(expiresMs)) return undefined;
  return { token, expiresMs };
}

export interface TokenExpectation {
  /** Leaf certificate of the peer that showed the token. */
  readonly certificatePem: string;
  readonly subject: string;
  readonly audience: string;
  readonly nowMs: number;
}

/** Checks a token that a peer has shown. @throws with the reason. */
export type VerifyToken = (token: string, expected: TokenExpectation) => Promise<void>;

/** Checks signature, subject, audience and expiry with a JWT library that the forwarder does not use. @throws with the reason. */
export const verifyToken: VerifyToken = async (token, expected) => {
  const { publicKey } = new X509Certificate(expected.certificatePem);
  const { payload } = await jwtVerify(token, publicKey, {
    algorithms: ["ES256"],
    subject: expected.subject,
    audience: expected.audience,
    currentDate: new Date(expected.nowMs),
  });
  if (!Array.isArray(payload.aud)) throw new Error("aud is not an array"); // the policies of every peer index into it
  if (payload.exp === undefined) throw new Error("exp is missing");
};

/** The same without a library, and without a thread: at once. */
export const verifyTokenAtOnce: VerifyToken = async (token, { certificatePem, subject, audience, nowMs }) => {
  const { publicKey } = new X509Certificate(certificatePem);
  const signedBytes = token.lastIndexOf(".");
  const signature = Buffer.from(token.slice(signedBytes + 1), "base64url");
  const isSigned = verify(
    "sha256",
    Buffer.from(token.slice(0, signedBytes)),
    { key: publicKey, dsaEncoding: "ieee-p1363" },
    signature,
  );
  if (!isSigned) throw new Error("signature verification failed");
  const { sub, aud, exp } = readToken(token);
  if (sub !== subject) throw new Error(`the subject is ${sub}`);
  if (!Array.isArray(aud) || !aud.includes(audience)) throw new Error(`it is for ${aud}`);
  if (exp * 1000 <= nowMs) throw new Error("it has expired");
};

/** What a token says, unchecked. @throws {SyntaxError} when it is no JWT. */
export function readToken(token: string): {
  readonly sub: string;
  readonly aud: readonly string[];
  readonly exp: number;
} {
  const [, body = "", signature, more] = token.split(".");
  if (signature === undefined || more !== undefined)
    throw new SyntaxError("Cannot read a token: it has not three parts");
  const { sub = "", aud = [], exp = 0 } = JSON.parse(Buffer.from(body, "base64url").toString("utf8"));
  return { sub, aud, exp };
}
