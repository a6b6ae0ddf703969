// What honest peers send: each field that is read is in one of them.
import { clone, create } from "@bufbuild/protobuf";
import { type Connection, ConnectionSchema, MonitorScopeSelectorSchema } from "../../../src/gen/connection_pb.ts";
import { NetworkServiceRequestSchema } from "../../../src/gen/networkservice_pb.ts";
import { ListPodResourcesResponseSchema } from "../../../src/gen/podresources_v1_pb.ts";
import {
  NetworkServiceEndpointResponseSchema,
  NetworkServiceEndpointSchema,
  NetworkServiceResponseSchema,
  NetworkServiceSchema,
} from "../../../src/gen/registry_pb.ts";
import { token } from "./identity-seeds.ts";

const segment = (name: string, id: string) => ({ name, id, token, expires: { seconds: 1_767_226_200n, nanos: 5 } });

const context = {
  ipContext: {
    srcIpAddrs: ["172.16.1.101/32", "2001:db8::1/128"],
    dstIpAddrs: ["172.16.1.100/32", "2001:db8::/128"],
    srcRoutes: [{ prefix: "172.16.1.100/32", nextHop: "172.16.1.1" }, { prefix: "::/0" }],
    dstRoutes: [{ prefix: "172.16.1.101/32" }],
    excludedPrefixes: ["10.96.0.0/12", "10.244.0.0/16"],
    ipNeighbors: [{ ip: "172.16.1.100", hardwareAddress: "02:00:00:00:00:01" }],
    policies: [
      { from: "172.16.2.0/24", proto: "tcp", srcPort: "80", dstPort: "1000-2000", routes: [{ prefix: "0.0.0.0/0" }] },
    ],
  },
  dnsContext: { configs: [{ dnsServerIps: ["10.96.0.10"], searchDomains: ["cluster.local"] }] },
  ethernetContext: { srcMac: "02:00:00:00:00:02", dstMac: "02:00:00:00:00:03", vlanTag: 7 },
  extraContext: { key: "value" },
  MTU: 1500,
};

const path = { index: 1, pathSegments: [segment("client", "c1"), segment("nsmgr", "m1")] };
const parameters = {
  inodeURL: "inode://4/4026531840",
  name: "nsm-1",
  tokenID: "sriov-0a1b2c3d-0a1b-0a1b-0a1b-0a1b2c3d4e5f",
};

const kernel = create(NetworkServiceRequestSchema, {
  connection: {
    id: "m1",
    networkService: "icmp@example.org",
    payload: "ETHERNET",
    path,
    context,
    labels: { app: "client" },
  },
  mechanismPreferences: [
    { cls: "LOCAL", type: "KERNEL", parameters },
    {
      cls: "LOCAL",
      type: "VFIO",
      parameters: { tokenID: parameters.tokenID, cgroupDir: "kubepods/burstable/pod1-2/*" },
    },
  ],
});
const refresh = create(NetworkServiceRequestSchema, {
  connection: {
    id: "f1",
    networkServiceEndpointName: "nse-1",
    path: { index: 2, pathSegments: [...path.pathSegments, segment("forwarder", "f1"), segment("nse-1", "e1")] },
    mechanism: { cls: "LOCAL", type: "KERNEL", parameters: { ...parameters, vlan: "7" } },
    context,
  },
});

const requested = create(ConnectionSchema, {
  id: "f1",
  networkService: "icmp",
  payload: "ETHERNET",
  path: { index: 1, pathSegments: [segment("nsmgr", "m1"), segment("forwarder", "f1")] },
});
const answered = create(ConnectionSchema, {
  id: "e1",
  path: { index: 2, pathSegments: [segment("nsmgr", "m1"), segment("forwarder", "f1"), segment("nse-1", "e1")] },
  mechanism: { cls: "LOCAL", type: "NOOP", parameters: { key: "value" } },
  context,
  labels: { app: "endpoint" },
});

const service = create(NetworkServiceSchema, {
  name: "icmp",
  payload: "IP",
  matches: [
    {
      sourceSelector: { app: "client" },
      routes: [{ destinationSelector: { app: "{{.app}}", nodeName: '{{ index . "nodeName" }}' } }],
      fallthrough: true,
    },
    { sourceSelector: {}, routes: [{ destinationSelector: {} }], metadata: { labels: { a: "b" } } },
  ],
});
const endpointOf = (name: string) =>
  create(NetworkServiceEndpointSchema, {
    name,
    url: "inode://4/4026531841",
    networkServiceNames: ["icmp"],
    networkServiceLabels: { icmp: { labels: { app: "client", nodeName: "n1" } } },
    expirationTime: { seconds: 1_767_226_200n, nanos: 0 },
    pathIds: ["spiffe://example.org/nse"],
  });

/** By the message they are of. */
export const messageSeeds = {
  requests: [kernel, refresh],
  connections: [answered, requested],
  requested: (): Connection => clone(ConnectionSchema, requested),
  selectors: [
    create(MonitorScopeSelectorSchema, { pathSegments: [{ name: "nsmgr", id: "m1" }, { name: "forwarder" }] }),
    create(MonitorScopeSelectorSchema, { networkServices: ["icmp"] }),
  ],
  service,
  services: [create(NetworkServiceResponseSchema, { networkService: service })],
  endpointList: [endpointOf("nse-1"), endpointOf("nse-2")],
  endpoints: [create(NetworkServiceEndpointResponseSchema, { networkServiceEndpoint: endpointOf("nse-3") })],
  podResources: [
    create(ListPodResourcesResponseSchema, {
      podResources: [
        {
          name: "client",
          namespace: "default",
          containers: [
            {
              name: "main",
              devices: [{ resourceName: "example.org/10G", deviceIds: ["sriov-1"], topology: { nodes: [{ ID: 1n }] } }],
              cpuIds: [1n, 2n],
            },
          ],
        },
      ],
    }),
  ],
};
