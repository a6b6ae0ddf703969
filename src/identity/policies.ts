import type { Policy, PolicyInput } from "./policy.ts";
import type { PolicyFault } from "./policy-error.ts";
import { nextTokenSigned, prevTokenSigned, tokensChained, tokensExpired, tokensValid } from "./verify-tokens.ts";

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

/** A name is new, or is registered by whom it was registered first. */
function clientAllowed({ resource }: PolicyInput): PolicyFault | undefined {
  const known = resource?.pathIds.get(resource.name);
  if (resource === undefined || known === undefined) return undefined;
  if (resource.id !== undefined && known[0] === resource.id) return undefined;
  const { name, id } = resource;
  return { kind: "foreign-resource", resource: name, owner: known[0] ?? "none", claimant: id ?? "none" };
}

/**
 * For the connection monitor, where the original has it and leaves it out (W4); ours goes by owner: decision 011. It refuses
 * every registration.
 */
function serviceConnection(): PolicyFault {
  return { kind: "no-common-connection", watcher: "a peer without certificate" };
}
