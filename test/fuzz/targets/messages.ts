// Messages in protobuf: of clients, endpoints, the registry, kubelet and the SPIRE agent, and what is made of them.
import { create, type DescMessage, fromBinary, type MessageShape, toBinary } from "@bufbuild/protobuf";
import { type Connection, ConnectionSchema, MonitorScopeSelectorSchema } from "../../../src/gen/connection_pb.ts";
import { AllocateRequestSchema, PreferredAllocationRequestSchema } from "../../../src/gen/deviceplugin_pb.ts";
import { NetworkServiceRequestSchema } from "../../../src/gen/networkservice_pb.ts";
import {
  AllocatableResourcesResponseSchema,
  ListPodResourcesResponseSchema,
} from "../../../src/gen/podresources_v1_pb.ts";
import { NetworkServiceEndpointResponseSchema, NetworkServiceResponseSchema } from "../../../src/gen/registry_pb.ts";
import { X509SVIDResponseSchema } from "../../../src/gen/workload_pb.ts";
import { IdentityError } from "../../../src/identity/error.ts";
import { readX509Context } from "../../../src/identity/read-svid.ts";
import { requestedNetdev } from "../../../src/mechanisms/kernel/requested-netdev.ts";
import { desiredNetdev } from "../../../src/netdev/desired.ts";
import { NetdevError } from "../../../src/netdev/error.ts";
import { readReply } from "../../../src/nsm/endpoint/endpoint-reply.ts";
import { FairOrder } from "../../../src/nsm/endpoint/fair-order.ts";
import { foundEndpoint } from "../../../src/nsm/endpoint/found-endpoint.ts";
import { matchEndpoints } from "../../../src/nsm/endpoint/match-endpoints.ts";
import { NsmError } from "../../../src/nsm/fault.ts";
import { mechanismChoices } from "../../../src/nsm/mechanism/requested-mechanism.ts";
import { isSelected } from "../../../src/nsm/monitor/monitor-selector.ts";
import { extendPath, returnToCaller, withoutTokens } from "../../../src/nsm/path.ts";
import {
  checkConnectionSize,
  checkRequestSize,
  checkSelectorSize,
  LIMITS,
} from "../../../src/nsm/permission/request-limits.ts";
import { decodeMessage } from "../../../src/rpc/handler.ts";
import { defaultMessageLimit } from "../../../src/rpc/message-limits.ts";
import { RpcError } from "../../../src/rpc/status.ts";
import { protobuf } from "../form.ts";
import { hold, type Target } from "../target.ts";
import { identity } from "./identity-seeds.ts";
import { messageSeeds } from "./message-seeds.ts";

interface MessageTarget<D extends DescMessage> {
  readonly name: string;
  readonly says: string;
  readonly schema: D;
  readonly seeds: readonly MessageShape<D>[];
  readonly act: (message: MessageShape<D>) => string;
  readonly words?: readonly string[];
}

const LIMIT = defaultMessageLimit;

/** Everything of a decoded message that was counted on the wire. */
function elementsOf(value: unknown): number {
  if (typeof value !== "object" || value === null || ArrayBuffer.isView(value)) return 1;
  const parts = Array.isArray(value) ? value : Object.values(value);
  return parts.reduce((sum: number, part) => sum + elementsOf(part), 0);
}

function messageTarget<D extends DescMessage>({ name, says, schema, seeds, act, words }: MessageTarget<D>): Target {
  return {
    name,
    says,
    form: protobuf,
    seeds: seeds.map((seed) => toBinary(schema, seed)),
    words: ["__proto__", "constructor", "\n\x00", "\x0a\x02\x0a\x00", "\xff\xff\xff\xff\x0f", ...(words ?? [])],
    refusals: [RpcError, NsmError, NetdevError, IdentityError],
    run(input) {
      const message = decodeMessage(schema, input, LIMIT);
      const again = toBinary(schema, message);
      const decoded = fromBinary(schema, again);
      hold(
        Buffer.compare(again, toBinary(schema, decoded)) === 0,
        () => "is another message when it is written and read",
      );
      decodeMessage(schema, again, LIMIT);
      return act(message);
    },
  };
}

const clock = { monotonicMs: () => 0 };
let ids = 0;

function placed(connection: Connection): string {
  checkConnectionSize(connection);
  const own = { name: "forwarder", newId: () => `id-${ids++}`, isOurs: ({ id }: { id: string }) => id === "own" };
  const place = extendPath(connection, own);
  const segments = connection.path?.pathSegments ?? [];
  hold(segments[place.index]?.name === "forwarder", () => "we are not at our own place");
  hold(segments[place.index]?.id === connection.id, () => "the connection's id is not that of our segment");
  hold(segments.length <= LIMITS.pathSegments + 1, () => "the path is longer than it may be");
  withoutTokens(connection, "and their times");
  returnToCaller(connection, place);
  return `index ${Math.min(place.index, 3)} of ${Math.min(segments.length, 5)}`;
}

function readMechanisms(request: MessageShape<typeof NetworkServiceRequestSchema>): string {
  const context = request.connection?.context;
  const read = mechanismChoices(request).map((choice) => {
    try {
      const desired = choice.read();
      if (desired.type !== "KERNEL") return desired.type;
      const netdev = desiredNetdev(requestedNetdev(desired, context));
      hold(netdev.addresses.length <= LIMITS.contextEntries, () => "more addresses than it may have");
      hold(Buffer.byteLength(netdev.name) <= 15, () => "the name of the link is too long");
      // What came out of the check must pass it again: plain data that is kept in the journal.
      return `link ${netdev.addresses.length} ${netdev.routes.length} ${netdev.rules.length} ${netdev.neighbours.length}`;
    } catch (error) {
      if (error instanceof NsmError || error instanceof NetdevError) return error.fault.kind;
      throw error;
    }
  });
  return read.slice(0, 3).join();
}

export const messageTargets: readonly Target[] = [
  messageTarget({
    name: "request",
    says: "a Request of a client",
    schema: NetworkServiceRequestSchema,
    seeds: messageSeeds.requests,
    words: [
      "KERNEL",
      "VFIO",
      "NOOP",
      "inodeURL",
      "inode://4/4026531840",
      "tokenID",
      "name",
      "10.0.0.1/24",
      "2001:db8::/48",
    ],
    act(request) {
      checkRequestSize(request);
      const mechanisms = readMechanisms(request);
      return `${mechanisms} ${request.connection ? placed(request.connection) : "none"}`;
    },
  }),
  messageTarget({
    name: "reply",
    says: "an endpoint's answer to our Request",
    schema: ConnectionSchema,
    seeds: messageSeeds.connections,
    act(answer) {
      const requested = messageSeeds.requested();
      const { connection } = readReply(requested, answer, "endpoint");
      hold(connection.id === requested.id, () => "the answer has renamed the connection");
      hold(connection.path?.index === 1, () => "the answer has moved us on the path");
      return `taken ${Math.min(connection.path?.pathSegments.length ?? 0, 5)}`;
    },
  }),
  messageTarget({
    name: "selector",
    says: "what a client wants to watch",
    schema: MonitorScopeSelectorSchema,
    seeds: messageSeeds.selectors,
    act(selector) {
      checkSelectorSize(selector);
      return String(isSelected(selector, messageSeeds.requested()));
    },
  }),
  messageTarget({
    name: "registry-service",
    says: "a network service as the registry has it",
    schema: NetworkServiceResponseSchema,
    seeds: messageSeeds.services,
    words: ["{{.app}}", "{{", "}}", '{{ index . "app" }}', " {{- ", " -}} "],
    act({ networkService }) {
      if (!networkService) return "none";
      const list = messageSeeds.endpointList.map((endpoint) => foundEndpoint(endpoint, networkService.name));
      return String(matchEndpoints({ app: "client", nodeName: "n1" }, networkService, list).length);
    },
  }),
  messageTarget({
    name: "registry-endpoint",
    says: "an endpoint as the registry has it",
    schema: NetworkServiceEndpointResponseSchema,
    seeds: messageSeeds.endpoints,
    act({ networkServiceEndpoint: endpoint }) {
      if (!endpoint) return "none";
      const entries = [endpoint, ...messageSeeds.endpointList];
      const list = entries.map((entry) => foundEndpoint(entry, messageSeeds.service.name));
      const order = new FairOrder(clock).of("service", list);
      hold(new Set(order).size === list.length, () => "the order has lost an endpoint");
      return String(matchEndpoints({ app: "client" }, messageSeeds.service, list).length);
    },
  }),
  messageTarget({
    name: "pod-resources",
    says: "kubelet's answer which pod has which device",
    schema: ListPodResourcesResponseSchema,
    seeds: messageSeeds.podResources,
    act: ({ podResources }) => `${elementsOf(podResources) > 0}`,
  }),
  messageTarget({
    name: "allocatable",
    says: "kubelet's answer which devices there are",
    schema: AllocatableResourcesResponseSchema,
    seeds: [create(AllocatableResourcesResponseSchema, { devices: [{ resourceName: "a/b", deviceIds: ["x"] }] })],
    act: ({ devices }) => String(devices.length > 0),
  }),
  messageTarget({
    name: "allocate",
    says: "kubelet's Allocate",
    schema: AllocateRequestSchema,
    seeds: [create(AllocateRequestSchema, { containerRequests: [{ devicesIds: ["sriov-1", "sriov-2"] }] })],
    act: ({ containerRequests }) => String(containerRequests.length > 0),
  }),
  messageTarget({
    name: "preferred-allocation",
    says: "kubelet's GetPreferredAllocation",
    schema: PreferredAllocationRequestSchema,
    seeds: [
      create(PreferredAllocationRequestSchema, {
        containerRequests: [{ availableDeviceIDs: ["a", "b"], mustIncludeDeviceIDs: ["a"], allocationSize: 2 }],
      }),
    ],
    act: ({ containerRequests }) => String(containerRequests[0]?.allocationSize ?? "none"),
  }),
  messageTarget({
    name: "workload-api",
    says: "the SPIRE agent's answer",
    schema: X509SVIDResponseSchema,
    seeds: [
      create(X509SVIDResponseSchema, {
        svids: [
          {
            spiffeId: "spiffe://example.org/ns/nsm-system/pod/nsmgr-x7k2p",
            x509Svid: Buffer.concat([identity.leaf, identity.middle]),
            x509SvidKey: identity.key,
            bundle: identity.root,
          },
        ],
        federatedBundles: { "spiffe://other.org": identity.odd },
      }),
    ],
    act(answer) {
      const { svid, bundles, brokenBundles } = readX509Context(answer);
      hold(Number.isFinite(svid.notAfterMs), () => "the SVID never expires");
      return `${bundles.size} ${brokenBundles.length}`;
    },
  }),
];
