import type { TokenParts } from "./jwt.ts";
import type { PolicyFault } from "./policy-error.ts";

/** A peer that was verified, as far as policies read it. */
export interface Signer {
  readonly spiffeId: string;
  readonly certificatePem: string;
}

/** A segment of a path as far as policies read it. */
interface PolicySegment {
  readonly token: string;
}

/** What is put before the policies. */
export interface PathCheck {
  /** Position of this server in a Request's path; of the registering client in a registry path. */
  readonly index: number;
  readonly segments: readonly PolicySegment[];
  /** The direct caller of a call; the server when a reply is checked. */
  readonly peer: Signer | undefined;
  readonly nowMs: number;
}

/** The registry's reply about something that we registered. */
export interface RegistrationCheck extends PathCheck {
  readonly resource: {
    readonly name: string;
    /** Subject of the first token of the path; undefined when that cannot be read. */
    readonly id: string | undefined;
    /** Resource name → path ids of the last accepted reply. */
    readonly pathIds: ReadonlyMap<string, readonly string[]>;
  };
}

/** Everything that some policy reads. */
export interface PolicyInput extends PathCheck {
  /** The segments' tokens taken apart once; undefined where that fails. */
  readonly tokens: readonly (TokenParts | undefined)[];
  readonly resource?: RegistrationCheck["resource"];
}

/** One rule: finds a fault or passes. */
export interface Policy {
  /** Path under which the original's masks select it: "policies/common/tokens_valid.rego". */
  readonly name: string;
  readonly findFault: (input: PolicyInput) => PolicyFault | undefined;
}
