import type { ConnectionContext, Route } from "../../gen/connectioncontext_pb.ts";
import type { RequestedNetdev, RequestedRoute } from "../../netdev/index.ts";
import type { DesiredKernel } from "../../nsm/index.ts";

/**
 * What the original's connectioncontextkernel reads. What a client's interface shall be, from the context that the endpoint
 * filled: the client is the source side. A client with VLAN devices of its own gets the bare interface: no address, route or
 * MTU of ours (sriov-behaviour §6.2). Whether it makes sense is for netdev to say.
 */
export function requestedNetdev(desired: DesiredKernel, context: ConnectionContext | undefined): RequestedNetdev {
  const ethernet = context?.ethernetContext;
  const ip = desired.bare ? undefined : context?.ipContext;
  return {
    name: desired.interfaceName,
    mtu: desired.bare ? undefined : context?.MTU || undefined,
    mac: ethernet?.srcMac ?? "",
    vlan: ethernet?.vlanTag ?? 0,
    addresses: ip?.srcIpAddrs ?? [],
    peerAddresses: ip?.dstIpAddrs ?? [],
    routes: (ip?.srcRoutes ?? []).map(requestedRoute),
    policies: (ip?.policies ?? []).map(({ from, proto, srcPort, dstPort, routes }) => ({
      from,
      protocol: proto,
      sourcePort: srcPort,
      destinationPort: dstPort,
      routes: routes.map(requestedRoute),
    })),
    neighbours: (ip?.ipNeighbors ?? []).map(({ ip: address, hardwareAddress: mac }) => ({ address, mac })),
  };
}

function requestedRoute({ prefix, nextHop }: Route): RequestedRoute {
  return { prefix, nextHop };
}
