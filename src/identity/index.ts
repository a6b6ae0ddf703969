// Who we are and whom we trust: SPIFFE IDs, our X.509 SVID, trust bundles, NSM's tokens and the policies over them.
// It knows certificates and tokens, and nothing of connections, VFs or gRPC codes: faults carry a kind, the caller
// translates. Start reading at verify-peer-chain.ts (who a peer is) and verify-tokens.ts (what a path of tokens must prove).
export { checkPath, checkRegistration } from "./check-policies.ts";
export { IdentityError, type IdentityFault } from "./error.ts";
export { Identity } from "./identity.ts";
export { decodeToken, type IssuedToken, LONGEST_TOKEN_BYTES, splitToken, type TokenParts } from "./jwt.ts";
export type { PathCheck, Policy, PolicyInput } from "./policy.ts";
export { isOfAnotherKey, PolicyError, type PolicyFault } from "./policy-error.ts";
export {
  compileMask,
  isBuiltInMask,
  type SelectedPolicies,
  selectPolicies,
  serverPolicyMasks,
} from "./select-policies.ts";
export { parseSpiffeId, trustDomainOf } from "./spiffe-id.ts";
export { parseSpiffeIdPattern, type SpiffeIdPattern } from "./spiffe-id-pattern.ts";
export { readTokenHeaders, tokenHeaders } from "./token-headers.ts";
