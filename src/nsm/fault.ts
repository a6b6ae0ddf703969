/** What can go wrong in this module. Callers decide by `kind`; `grpc-status.ts` turns each kind into a gRPC code. */
export type NsmFault =
  /** The path of a connection is not one that we can extend. */
  | { readonly kind: "bad-path"; readonly problem: string }
  /** A repeated field or a text is longer than any honest peer sends. */
  | { readonly kind: "too-large"; readonly what: string; readonly size: number; readonly limit: number }
  /** The caller has as much of this node as one owner may have: quota.ts. */
  | ({ readonly kind: "over-quota"; readonly owner: string } & QuotaExcess)
  /** A client behind the manager has as many calls under way as it may: client-behind.ts. */
  | { readonly kind: "too-many-calls"; readonly client: string }
  /** Too many calls wait for their turn on one connection: connection-turn.ts. */
  | { readonly kind: "too-many-waiting"; readonly id: string; readonly waiting: number }
  /** The manager tries an earlier name of ours for a connection that was not made under it. */
  | { readonly kind: "earlier-name"; readonly name: string }
  /** A value that a peer sent cannot be used. */
  | { readonly kind: "bad-value"; readonly what: string; readonly value: string; readonly desired: string }
  /** The connection names a mechanism that we do not know. */
  | { readonly kind: "unsupported-mechanism" }
  /** A mechanism that this node does not have. */
  | { readonly kind: "cannot-give"; readonly mechanism: string }
  /** None of the mechanism preferences could be given; the first attempt that failed is the `cause`. */
  | { readonly kind: "no-mechanism"; readonly attempts: readonly unknown[] }
  | { readonly kind: "service-not-found"; readonly service: string }
  | { readonly kind: "endpoint-not-found"; readonly endpoint: string; readonly why?: string }
  | { readonly kind: "no-candidates" }
  /** Every candidate refused; the last refusal is the `cause`. */
  | { readonly kind: "candidates-failed"; readonly failures: readonly CandidateFailure[] }
  /** The caller names a connection that another peer made. */
  | { readonly kind: "not-the-owner"; readonly id: string }
  /** A peer's token or identity is missing where one is needed. */
  | { readonly kind: "no-identity"; readonly problem: string }
  /** The endpoint's answer contradicts our Request. */
  | { readonly kind: "bad-reply"; readonly endpoint: string; readonly problem: string }
  /** The network namespace of the client did not arrive, or is not one. */
  | { readonly kind: "no-namespace"; readonly url: string; readonly problem: string }
  /** An earlier life of the connection is not cleaned up yet; that is tried again on its own. */
  | { readonly kind: "reclaiming"; readonly id: string }
  /** What a connection has of the node could not be released. */
  | { readonly kind: "teardown-failed"; readonly failure: unknown }
  /** The endpoint did not take the Close, everything of ours is clean. */
  | { readonly kind: "endpoint-close-failed"; readonly failure: unknown }
  /** The registry gave no answer that can be used. */
  | { readonly kind: "registry"; readonly problem: string };

/** One endpoint that got the Request and refused it. */
export interface CandidateFailure {
  readonly endpoint: string;
  readonly error: unknown;
}

/** Why a connection is not kept. */
export interface QuotaExcess {
  readonly limitOf: QuotaKind;
  readonly used: number;
  readonly limit: number;
}

/**
 * `connection-bytes`: one connection is too large. `client-`: those of one client behind the manager. `others-`: those of all peers
 * but the manager, together.
 */
export const QUOTA_KINDS = [
  "connection-bytes",
  "owner-connections",
  "owner-bytes",
  "client-connections",
  "client-bytes",
  "others-connections",
  "others-bytes",
] as const;
export type QuotaKind = (typeof QUOTA_KINDS)[number];

/** What is refused to who has its share, for the metric. */
export const REFUSAL_KINDS = [...QUOTA_KINDS, "client-calls", "waiting-calls", "log-lines"] as const;
/** One of them. */
export type RefusalKind = (typeof REFUSAL_KINDS)[number];

/** A Request, Close or registration could not be done. */
export class NsmError extends Error {
  override readonly name = "NsmError";
  readonly fault: NsmFault;

  constructor(fault: NsmFault) {
    const cause = causeOf(fault);
    super(describe(fault), cause === undefined ? undefined : { cause });
    this.fault = fault;
  }
}

/** The text of any thrown value. */
export function textOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

function causeOf(fault: NsmFault): unknown {
  switch (fault.kind) {
    case "no-mechanism":
      return fault.attempts[0];
    case "candidates-failed":
      return fault.failures.at(-1)?.error;
    case "teardown-failed":
    case "endpoint-close-failed":
      return fault.failure;
    default:
      return undefined;
  }
}

// Texts that stock peers and their operators know are kept word for word: nsm-protocol §1.7.
function describe(fault: NsmFault): string {
  switch (fault.kind) {
    case "bad-path":
      return fault.problem;
    case "too-large":
      return `Cannot accept ${fault.what}: ${fault.size} are more than the limit of ${fault.limit}`;
    case "over-quota":
      return `Cannot keep a connection of ${fault.owner}: ${describeExcess(fault)}`;
    case "too-many-calls":
      return `Cannot take a call of ${fault.client || "a client without identity"}: it has as many under way as it may; wait for some to end`;
    case "too-many-waiting":
      return `Cannot take a call of connection ${fault.id}: ${fault.waiting} calls wait for their turn on it; try again when one has ended`;
    case "earlier-name":
      return `Cannot serve this connection under ${fault.name}: it is an earlier name of this forwarder, and the connection has another; use that, or the name of today`;
    case "bad-value":
      return `Cannot use ${fault.what} "${fault.value.slice(0, 128)}": want ${fault.desired}`;
    case "unsupported-mechanism":
      return "unsupported mechanism";
    case "cannot-give":
      return `Cannot give mechanism ${fault.mechanism}: this node is not set up for it`;
    case "no-mechanism":
      return fault.attempts.reduceRight<string>(
        (text, attempt) => `${textOf(attempt)}: ${text}`,
        "cannot support any of the requested mechanism",
      );
    case "service-not-found":
      return `network service ${fault.service} is not found`;
    case "endpoint-not-found":
      return `network service endpoint ${fault.endpoint} not found${fault.why ? `: ${fault.why}` : ""}`;
    case "no-candidates":
      return "network service endpoint candidates not found";
    case "candidates-failed":
      return fault.failures.reduce(
        (text, { endpoint, error }, index) =>
          `${index}. An error during select endpoint ${endpoint} --> ${textOf(error)}: ${text}`,
        "all candidates have failed",
      );
    case "not-the-owner":
      return "no sufficient privileges: the caller has no connection of this id";
    case "no-identity":
      return `no sufficient privileges: ${fault.problem}`;
    case "bad-reply":
      return `Cannot use the answer of endpoint ${fault.endpoint}: ${fault.problem}`;
    case "no-namespace":
      return `Cannot reach the client's network namespace ${fault.url}: ${fault.problem}`;
    case "reclaiming":
      return `Cannot serve connection ${fault.id}: its earlier life is still being taken down, try again`;
    case "teardown-failed":
      return `errors during close: node: ${textOf(fault.failure)}`;
    case "endpoint-close-failed":
      return `errors during client close: ${textOf(fault.failure)}`;
    case "registry":
      return `Cannot use the registry: ${fault.problem}`;
  }
}

function describeExcess({ limitOf, used, limit }: QuotaExcess): string {
  switch (limitOf) {
    case "connection-bytes":
      return `it has ${used} bytes, and one connection may have ${limit}; shorten its labels, context or path`;
    case "owner-connections":
      return `its owner has ${used} connections of that kind, and may have ${limit}; close what is not needed`;
    case "owner-bytes":
      return `its owner's connections would have ${used} bytes, and may have ${limit}; close what is not needed`;
    case "client-connections":
      return `its client has ${used} connections of that kind behind the manager, and may have ${limit} now; close what is not needed`;
    case "client-bytes":
      return `its client's connections behind the manager would have ${used} bytes, and may have ${limit} now; close what is not needed`;
    case "others-connections":
      return `peers other than the manager have ${used} connections, and may have ${limit} together; ask through the manager`;
    case "others-bytes":
      return `the connections of peers other than the manager would have ${used} bytes, and may have ${limit} together; ask through the manager`;
  }
}
