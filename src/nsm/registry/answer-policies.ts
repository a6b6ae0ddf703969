import { checkRegistration, decodeToken, type Policy } from "../../identity/index.ts";
import type { PeerIdentity } from "../../rpc/index.ts";

/** What the registration policies judge of an answer: nsm-protocol §4.2. */
export interface RegistrationAnswer {
  readonly name: string;
  readonly pathIds: readonly string[];
  readonly index: number;
  readonly tokens: readonly string[];
  readonly peer: PeerIdentity;
  readonly nowMs: number;
}

/** The policies of NSM_REGISTRY_CLIENT_POLICIES, applied to what the manager answers; remembers what was accepted. */
export function answerPolicies(selected: readonly Policy[]): (answer: RegistrationAnswer) => void {
  const accepted = new Map<string, readonly string[]>();
  return ({ name, pathIds, index, tokens, peer, nowMs }) => {
    const [first] = tokens;
    const id = first === undefined ? undefined : subjectOf(first);
    const segments = tokens.map((token) => ({ token }));
    checkRegistration(selected, { index, segments, peer, nowMs, resource: { name, id, pathIds: accepted } });
    accepted.set(name, pathIds);
  };
}

function subjectOf(token: string): string | undefined {
  try {
    return decodeToken(token).sub;
  } catch {
    return undefined;
  }
}
