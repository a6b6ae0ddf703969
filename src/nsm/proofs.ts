import {
  checkPath,
  checkRegistration,
  decodeToken,
  type Identity,
  readTokenHeaders,
  selectPolicies,
  serverPolicyMasks,
} from "../identity/index.ts";
import type { PathPolicies, Tokens } from "./needs.ts";
import type { RegistrationToCheck } from "./register.ts";

/** Tokens of our own identity; `lifetimeMs` is NSM_MAX_TOKEN_LIFETIME. */
export function identityTokens(identity: Identity, lifetimeMs: number): Tokens {
  return {
    issue: (audience) => identity.issueToken(audience, lifetimeMs),
    fromHeaders: readTokenHeaders,
    expiryOf: (token) => decodeToken(token).expMs,
  };
}

/** The policies that guard Request and Close; like upstream's they cannot be configured. */
export function serverPolicies(): PathPolicies {
  const selected = selectPolicies(serverPolicyMasks);
  return { check: (path) => checkPath(selected, path) };
}

/**
 * The policies that judge the registry's answers: NSM_REGISTRY_CLIENT_POLICIES.
 * @throws {IdentityError} bad-policy-mask.
 */
export function registrationPolicies(masks: readonly string[]): (answer: RegistrationToCheck) => void {
  const selected = selectPolicies(masks);
  const accepted = new Map<string, readonly string[]>();
  return ({ name, pathIds, index, tokens, peer, nowMs }) => {
    const segments = tokens.map((token) => ({ token }));
    const resource = { name, id: subjectOf(tokens[0]), pathIds: accepted };
    checkRegistration(selected, { index, segments, peer, nowMs, resource });
    accepted.set(name, pathIds);
  };
}

/** Headers are the peer's; unreadable ones have no subject. */
function subjectOf(token: string | undefined): string | undefined {
  try {
    return token === undefined ? undefined : decodeToken(token).sub;
  } catch {
    return undefined;
  }
}
