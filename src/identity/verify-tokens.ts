import { type KeyObject, X509Certificate } from "node:crypto";
import { audienceOf, expiryOf, isSignedBy, subjectOf } from "./jwt.ts";
import type { Policy, PolicyInput, Signer } from "./policy.ts";
import type { PolicyFault } from "./policy-error.ts";

/** The original's seven rules, sorted by path as the original finds them. */
export const policies: readonly Policy[] = [
  { name: "policies/client/next_token_signed.rego", findFault: nextTokenSigned },
  { name: "policies/common/tokens_chained.rego", findFault: tokensChained },
  { name: "policies/common/tokens_expired.rego", findFault: tokensExpired },
  { name: "policies/common/tokens_valid.rego", findFault: tokensValid },
  { name: "policies/monitor/service_connection.rego", findFault: serviceConnection },
  { name: "policies/registry/client_allowed.rego", findFault: clientAllowed },
  { name: "policies/server/prev_token_signed.rego", findFault: prevTokenSigned },
];

/** Every token can be taken apart. Its claims may be anything, or nothing. */
function tokensValid({ tokens }: PolicyInput): PolicyFault | undefined {
  const segment = tokens.indexOf(undefined);
  return segment === -1 ? undefined : { kind: "no-token", segment };
}

/** Every token's time is still to come, down to fractions of a second. */
function tokensExpired({ tokens, nowMs }: PolicyInput): PolicyFault | undefined {
  const segment = tokens.findIndex((token) => !(nowMs < ((token && expiryOf(token)) ?? 0)));
  return segment === -1 ? undefined : { kind: "expired", segment };
}

/** Every token is for the subject of the next one. Membership: the original fails on more than one audience (W12). */
function tokensChained({ tokens }: PolicyInput): PolicyFault | undefined {
  for (const [segment, token] of tokens.slice(0, -1).entries()) {
    const next = tokens[segment + 1];
    const audience = (token && audienceOf(token)) ?? [];
    const subject = next && subjectOf(next);
    if (subject === undefined || !audience.includes(subject)) {
      return { kind: "not-chained", segment, audience: audience.join(", ") || "nobody", subject: subject ?? "nobody" };
    }
  }
  return undefined;
}

/** The direct caller's token is signed with the key of its certificate. */
function prevTokenSigned(input: PolicyInput): PolicyFault | undefined {
  return input.index < 1 ? { kind: "no-caller" } : signedByPeer(input, input.index - 1);
}

/** The direct server's token is signed with the key of its certificate. */
function nextTokenSigned(input: PolicyInput): PolicyFault | undefined {
  const segment = input.index + 1;
  return input.tokens.length <= segment ? { kind: "no-answer" } : signedByPeer(input, segment);
}

/** A name is new, or is registered by whom it was registered first. */
function clientAllowed({ resource }: PolicyInput): PolicyFault | undefined {
  const known = resource?.pathIds.get(resource.name);
  if (resource === undefined || known === undefined) return undefined;
  if (resource.id !== undefined && known[0] === resource.id) return undefined;
  const { name, id } = resource;
  return { kind: "foreign-resource", resource: name, owner: known[0] ?? "nobody", claimant: id ?? "nobody" };
}

/** The watcher asks for a connection that it has made itself. */
function serviceConnection({ monitor }: PolicyInput): PolicyFault | undefined {
  const watcher = monitor?.watcher?.spiffeId;
  const own = watcher === undefined ? undefined : monitor?.connectionIds.get(watcher);
  const isShared = monitor?.selectorIds.some((id) => own?.has(id) ?? false) ?? false;
  return isShared ? undefined : { kind: "no-common-connection", watcher: watcher ?? "a peer without certificate" };
}

/**
 * The original looks at the signature alone, so a caller could sign somebody else's name with its own key; here the subject
 * must be the one of the certificate (W5).
 */
function signedByPeer({ tokens, peer }: PolicyInput, segment: number): PolicyFault | undefined {
  const token = tokens[segment];
  if (token === undefined) return { kind: "no-token", segment };
  if (peer === undefined) return { kind: "no-certificate" };
  const signer = peer.spiffeId;
  const subject = subjectOf(token) ?? "nobody";
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
