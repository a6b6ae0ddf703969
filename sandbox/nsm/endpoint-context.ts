import { clone, create, type MessageInitShape } from "@bufbuild/protobuf";
import {
  type ConnectionContext,
  ConnectionContextSchema,
  DNSContextSchema,
  EthernetContextSchema,
  IPContextSchema,
  type PolicyRouteSchema,
} from "../../src/gen/connectioncontext_pb.ts";
import type { Ipam } from "./ipam.ts";

/** What an endpoint wants of every client beyond addresses. */
export interface DesiredContext {
  readonly ethernet?: { readonly srcMac?: string; readonly dstMac?: string; readonly vlanTag?: number };
  /** Further routes of the client, beside those to the endpoint's own addresses. */
  readonly srcRoutes?: readonly { readonly prefix: string; readonly nextHop?: string }[];
  readonly policies?: readonly MessageInitShape<typeof PolicyRouteSchema>[];
  readonly neighbours?: readonly { readonly ip: string; readonly hardwareAddress: string }[];
  readonly mtu?: number;
  readonly dns?: { readonly dnsServerIps: string[]; readonly searchDomains: string[] };
}

/**
 * The context of one connection: addresses for both ends from each prefix, a route for each end to the other, and what
 * the endpoint wants besides. Excluded prefixes of the client are handed back as they came.
 */
export function describeContext(
  before: ConnectionContext | undefined,
  addresses: { readonly ipams: readonly Ipam[]; readonly key: string },
  desired: DesiredContext,
): ConnectionContext {
  const own = addresses.ipams.map((ipam) => ipam.own);
  const client = addresses.ipams.map((ipam) => ipam.lease(addresses.key));
  const context = before === undefined ? create(ConnectionContextSchema) : clone(ConnectionContextSchema, before);
  const excludedPrefixes = before?.ipContext?.excludedPrefixes ?? [];
  context.ipContext = create(IPContextSchema, {
    excludedPrefixes,
    srcIpAddrs: client,
    dstIpAddrs: own,
    srcRoutes: [...own.map((prefix) => ({ prefix })), ...(desired.srcRoutes ?? [])],
    dstRoutes: client.map((prefix) => ({ prefix })),
    ipNeighbors: [...(desired.neighbours ?? [])],
    policies: [...(desired.policies ?? [])],
  });
  if (desired.ethernet !== undefined) context.ethernetContext = create(EthernetContextSchema, desired.ethernet);
  if (desired.dns !== undefined) context.dnsContext = create(DNSContextSchema, { configs: [desired.dns] });
  if (desired.mtu !== undefined) context.MTU = desired.mtu;
  return context;
}
