// What a path of NSM tokens must prove: the rules of the original that read tokens.
import { type KeyObject, X509Certificate } from "node:crypto";
import { audienceOf, expiryOf, isSignedBy, subjectOf } from "./jwt.ts";
import type { PolicyInput, Signer } from "./policy.ts";
import type { PolicyFault } from "./policy-error.ts";

/** Every token can be taken apart. Its claims may be anything, or nothing. */
export function tokensValid({ tokens }: PolicyInput): PolicyFault | undefined {
  const segment = tokens.indexOf(undefined);
  return segment === -1 ? undefined : { kind: "no-token", segment };
}

/** Every token's time is still to come, down to fractions of a second. */
export function tokensExpired({ tokens, nowMs }: PolicyInput): PolicyFault | undefined {
  const segment = tokens.findIndex((token) => !(nowMs < ((token && expiryOf(token)) ?? 0)));
  return segment === -1 ? undefined : { kind: "expired", segment };
}

/** Every token is for the subject of the next one. Membership: the original fails on more than one audience (W12). */
export function tokensChained({ tokens }: PolicyInput): PolicyFault | undefined {
  for (const [segment, token] of tokens.slice(0, -1).entries()) {
    const next = tokens[segment + 1];
    const audience = (token && audienceOf(token)) ?? [];
    const subject = next && subjectOf(next);
    if (subject === undefined || !audience.includes(subject)) {
      return { kind: "not-chained", segment, audience: audience.join(", ") || "none", subject: subject ?? "none" };
    }
  }
  return undefined;
}

/** The direct caller's token is signed with the key of its certificate. */
export function prevTokenSigned(input: PolicyInput): PolicyFault | undefined {
  return input.index < 1 ? { kind: "no-caller" } : signedByPeer(input, input.index - 1);
}

/** The direct server's token is signed with the key of its certificate. */
export function nextTokenSigned(input: PolicyInput): PolicyFault | undefined {
  const segment = input.index + 1;
  return input.tokens.length <= segment ? { kind: "no-answer" } : signedByPeer(input, segment);
}

/**
 * The original checks the signature alone, so a caller could sign another's name with its own key; here the subject
 * must be the one of the certificate (W5).
 */
function signedByPeer({ tokens, peer }: PolicyInput, segment: number): PolicyFault | undefined {
  const token = tokens[segment];
  if (token === undefined) return { kind: "no-token", segment };
  if (peer === undefined) return { kind: "no-certificate" };
  const signer = peer.spiffeId;
  const subject = subjectOf(token) ?? "none";
  if (!isSignedBy(token, publicKeyOf(peer))) return { kind: "bad-signature", segment, subject, signer };
  return subject === signer ? undefined : { kind: "wrong-subject", segment, subject, signer };
}

/** Reading a certificate costs more than checking a signature, and a peer keeps its connection for hours. */
const publicKeys = new WeakMap<Signer, KeyObject>();

function publicKeyOf(peer: Signer): KeyObject {
  const known = publicKeys.get(peer);
  if (known !== undefined) return known;
  const key = new X509Certificate(peer.certificatePem).publicKey;
  publicKeys.set(peer, key);
  return key;
}
