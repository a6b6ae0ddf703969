/** What is wrong with an identity, ours or a peer's, or with a proof of one. */
export type IdentityFault =
  | { readonly kind: "bad-spiffe-id"; readonly text: string; readonly problem: string }
  /** Our own SVID as the Workload API gave it. */
  | { readonly kind: "bad-svid"; readonly problem: string }
  /** Our own key cannot sign NSM tokens. */
  | { readonly kind: "unusable-key"; readonly found: string }
  | { readonly kind: "bad-certificate"; readonly problem: string }
  /** A peer's certificates do not prove what they say. */
  | { readonly kind: "untrusted-peer"; readonly spiffeId?: string; readonly problem: string }
  | { readonly kind: "no-svid"; readonly waitsFor: string }
  | { readonly kind: "bad-token"; readonly problem: string }
  /** No token can be issued any more: a certificate that limits it has expired. */
  | { readonly kind: "expired"; readonly what: string; readonly atMs: number; readonly problem?: string }
  | { readonly kind: "bad-socket"; readonly text: string; readonly problem: string }
  | { readonly kind: "bad-policy-mask"; readonly mask: string; readonly problem: string };

/** An identity, a token or the way to them is not usable. */
export class IdentityError extends Error {
  override readonly name = "IdentityError";
  readonly fault: IdentityFault;
  constructor(fault: IdentityFault, options?: ErrorOptions) {
    super(describe(fault), options);
    this.fault = fault;
  }
}

function describe(fault: IdentityFault): string {
  switch (fault.kind) {
    case "bad-spiffe-id":
      return `Cannot use "${shorten(fault.text)}" as a SPIFFE ID: ${fault.problem}`;
    case "bad-svid":
      return `Cannot use the X.509 SVID of the Workload API: ${fault.problem}`;
    case "unusable-key":
      return (
        `Cannot use the X.509 SVID of the Workload API: its key is ${fault.found}, and NSM tokens are signed with ` +
        `ES256, which needs EC P-256; set workload_x509_svid_key_type = "ec-p256" in the SPIRE agent`
      );
    case "bad-certificate":
      return `Cannot read a certificate: ${fault.problem}`;
    case "untrusted-peer":
      return `Cannot trust the peer${fault.spiffeId ? ` ${fault.spiffeId}` : ""}: ${fault.problem}`;
    case "no-svid":
      return `Cannot prove who we are: no X.509 SVID yet from ${fault.waitsFor}`;
    case "bad-token":
      return `Cannot read a token: ${fault.problem}`;
    case "expired":
      return (
        `Cannot issue a token: ${fault.what} expired at ${new Date(fault.atMs).toISOString()}` +
        (fault.problem === undefined ? "" : `, and there is no new one: ${fault.problem}`)
      );
    case "bad-socket":
      return `Cannot use "${fault.text}" as SPIFFE_ENDPOINT_SOCKET: ${fault.problem}`;
    case "bad-policy-mask":
      return `Cannot use the policy mask "${fault.mask}": ${fault.problem}`;
  }
}

/** Texts of peers go into messages only up to a length that a log line bears. */
function shorten(text: string): string {
  return text.length <= 128 ? text : `${text.slice(0, 128)}…`;
}
