/** Why a policy refused. Segments are counted from 0. */
export type PolicyFault =
  | { readonly kind: "index-out-of-range"; readonly index: number; readonly segments: number }
  | { readonly kind: "no-token"; readonly segment: number }
  | { readonly kind: "expired"; readonly segment: number }
  | { readonly kind: "not-chained"; readonly segment: number; readonly audience: string; readonly subject: string }
  | { readonly kind: "no-caller" }
  | { readonly kind: "no-answer" }
  | { readonly kind: "no-certificate" }
  | { readonly kind: "bad-signature"; readonly segment: number; readonly subject: string; readonly signer: string }
  | { readonly kind: "wrong-subject"; readonly segment: number; readonly subject: string; readonly signer: string }
  | { readonly kind: "foreign-resource"; readonly resource: string; readonly owner: string; readonly claimant: string }
  | { readonly kind: "no-common-connection"; readonly watcher: string }
  /** A policy of the operator's own says no; `entry` is its rule. */
  | { readonly kind: "own-refusal"; readonly entry: string }
  | { readonly kind: "own-failure"; readonly problem: string };

/** A policy refused a call or an answer. Its message names identities and positions, never a token. */
export class PolicyError extends Error {
  override readonly name = "PolicyError";
  /** Name of the policy, or "path" when no policy could even run. */
  readonly policy: string;
  readonly fault: PolicyFault;
  constructor(policy: string, fault: PolicyFault) {
    super(`Refused by ${policy}: ${describe(fault)}`);
    this.policy = policy;
    this.fault = fault;
  }
}

/**
 * Whether a token in the peer's own name is signed with another key than that of the certificate which it showed. This also
 * holds for a peer that has renewed its certificate since, until it shows the new one to a new connection.
 */
export function isOfAnotherKey(error: unknown): boolean {
  const fault = error instanceof PolicyError ? error.fault : undefined;
  return fault?.kind === "bad-signature" && fault.subject === fault.signer;
}

function describe(fault: PolicyFault): string {
  switch (fault.kind) {
    case "index-out-of-range":
      return `path index ${fault.index} is not one of its ${fault.segments} segments`;
    case "no-token":
      return `segment ${fault.segment} holds no readable token`;
    case "expired":
      return `the token of segment ${fault.segment} has expired or says no time`;
    case "not-chained":
      return `the token of segment ${fault.segment} is for ${fault.audience}, and the next one is of ${fault.subject}`;
    case "no-caller":
      return "the path has no segment before ours";
    case "no-answer":
      return "the path has no segment after ours";
    case "no-certificate":
      return "the peer has shown no certificate";
    case "bad-signature":
      return `the token of segment ${fault.segment} is not signed by the peer ${fault.signer}`;
    case "wrong-subject":
      return `the token of segment ${fault.segment} says ${fault.subject}, and its signer is ${fault.signer}`;
    case "foreign-resource":
      return `${fault.resource} belongs to ${fault.owner}, not to ${fault.claimant}`;
    case "own-refusal":
      return `${fault.entry} is false`;
    case "own-failure":
      return `it could not be evaluated: ${fault.problem}`;
    case "no-common-connection":
      return `${fault.watcher} has made none of the connections that it wants to watch`;
  }
}
