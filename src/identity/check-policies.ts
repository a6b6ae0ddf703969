import { IdentityError } from "./error.ts";
import { splitToken, type TokenParts } from "./jwt.ts";
import type { PathCheck, Policy, PolicyInput, RegistrationCheck } from "./policy.ts";
import { PolicyError } from "./policy-error.ts";

/**
 * The server's check of a Request or Close, over the segments up to and with its own.
 * @throws {PolicyError} of the first policy that refuses
 */
export function checkPath(selected: readonly Policy[], check: PathCheck): void {
  const segments = check.segments.slice(0, check.index + 1);
  if (check.index < 0 || segments.length !== check.index + 1) {
    const fault = { kind: "index-out-of-range", index: check.index, segments: check.segments.length } as const;
    throw new PolicyError("path", fault);
  }
  run(selected, prepare({ ...check, segments }));
}

/**
 * The client's check of what the registry answered: the whole path, with the server as the peer.
 * @throws {PolicyError} of the first policy that refuses
 */
export function checkRegistration(selected: readonly Policy[], check: RegistrationCheck): void {
  run(selected, { ...prepare(check), resource: check.resource });
}

function run(selected: readonly Policy[], input: PolicyInput): void {
  for (const policy of selected) {
    const fault = policy.findFault(input);
    if (fault !== undefined) throw new PolicyError(policy.name, fault);
  }
}

function prepare(check: PathCheck): PolicyInput {
  return { ...check, tokens: check.segments.map((segment) => splitOrNothing(segment.token)) };
}

function splitOrNothing(token: string): TokenParts | undefined {
  try {
    return splitToken(token);
  } catch (error) {
    if (error instanceof IdentityError) return undefined;
    throw error;
  }
}
