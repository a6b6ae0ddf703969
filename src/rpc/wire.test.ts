import assert from "node:assert/strict";
import { test } from "node:test";
import { create, type DescMessage, fromBinary, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import { ConnectionEventSchema, ConnectionEventType, State } from "../gen/connection_pb.ts";
import {
  AllocateResponseSchema,
  ListAndWatchResponseSchema,
  PreferredAllocationRequestSchema,
} from "../gen/deviceplugin_pb.ts";
import { NetworkServiceRequestSchema } from "../gen/networkservice_pb.ts";
import { ListPodResourcesResponseSchema } from "../gen/podresources_v1_pb.ts";
import { NetworkServiceEndpointQuerySchema, NetworkServiceResponseSchema } from "../gen/registry_pb.ts";
import { SpiffeWorkloadAPI, X509SVIDResponseSchema } from "../gen/workload_pb.ts";

// The hex was written by a field-by-field encoder of twenty lines of Python, fed with the field numbers of the Go API
// (networkservicemesh/api, kubernetes/kubelet, spiffe/go-spiffe), not with proto/.
interface Row<D extends DescMessage> {
  readonly schema: D;
  readonly message: MessageInitShape<D>;
  readonly hex: string;
}

function row<D extends DescMessage>(schema: D, message: MessageInitShape<D>, hex: string): Row<DescMessage> {
  return { schema, message: create(schema, message), hex } as unknown as Row<DescMessage>;
}

const route = { prefix: "10.0.0.0/8", nextHop: "10.0.0.1" };
const time = { seconds: 1764000000n, nanos: 5 };
const rows = [
  row(
    NetworkServiceRequestSchema,
    {
      connection: {
        id: "f1",
        networkService: "ns",
        mechanism: { cls: "LOCAL", type: "KERNEL", parameters: { inodeURL: "inode://4/4026533012" } },
        context: {
          ipContext: {
            srcIpAddrs: ["172.16.1.2/32"],
            srcIpRequired: true,
            srcRoutes: [route],
            policies: [{ from: "10.1.1.1/32", dstPort: "80-90", routes: [route] }],
          },
          ethernetContext: { srcMac: "02:00:00:00:00:01", vlanTag: 100 },
          MTU: 9000,
        },
        labels: { sriovToken: "d/c" },
        path: {
          index: 1,
          pathSegments: [
            { name: "nsc", id: "c1", token: "jwt", expires: time, metrics: { client_interface: "KERNEL/nsm-1" } },
          ],
        },
        networkServiceEndpointName: "nse",
        payload: "ETHERNET",
        state: State.RESELECT_REQUESTED,
      },
      mechanismPreferences: [{ cls: "LOCAL", type: "VFIO" }],
    },
    "0a94020a02663112026e731a310a054c4f43414c12064b45524e454c1a200a08696e6f646555524c1214696e6f64653a2f2f342f3430323635333330313222730a570a0d3137322e31362e312e322f333218012a160a0a31302e302e302e302f38120831302e302e302e315a2c0a0b31302e312e312e312f33321a0538302d39302a160a0a31302e302e302e302f38120831302e302e302e311a150a1130323a30303a30303a30303a30303a3031186428a8462a110a0a7372696f76546f6b656e1203642f63323e0801123a0a036e7363120263311a036a7774220808808292c90610052a200a10636c69656e745f696e74657266616365120c4b45524e454c2f6e736d2d313a036e7365420845544845524e45544803120d0a054c4f43414c12045646494f",
  ),
  row(
    ConnectionEventSchema,
    { type: ConnectionEventType.UPDATE, connections: { f1: { id: "f1", state: State.DOWN } } },
    "0801120c0a02663112060a0266314801",
  ),
  row(
    NetworkServiceEndpointQuerySchema,
    {
      networkServiceEndpoint: {
        name: "fwd",
        networkServiceNames: ["forwarder"],
        networkServiceLabels: { forwarder: { labels: { p2p: "true" } } },
        url: "inode://5/77",
        expirationTime: time,
        initialRegistrationTime: time,
        pathIds: ["spiffe://x/y"],
      },
      watch: true,
    },
    "0a5c0a036677641209666f727761726465721a1a0a09666f72776172646572120d0a0b0a03703270120474727565220c696e6f64653a2f2f352f37372a0808808292c9061005320808808292c90610053a0c7370696666653a2f2f782f791001",
  ),
  row(
    NetworkServiceResponseSchema,
    {
      networkService: {
        name: "ns",
        payload: "IP",
        matches: [
          {
            sourceSelector: { a: "b" },
            routes: [{ destinationSelector: { c: "d" }, weight: 7 }],
            fallthrough: true,
            metadata: { labels: { e: "f" } },
          },
        ],
        pathIds: ["id"],
      },
      deleted: true,
    },
    "0a2e0a026e73120249501a200a060a0161120162120a0a060a01631201641007180122080a060a0165120166220269641001",
  ),
  row(
    AllocateResponseSchema,
    {
      containerResponses: [
        {
          envs: { A: "b" },
          mounts: [{ containerPath: "/c", hostPath: "/h", readOnly: true }],
          devices: [{ containerPath: "/dev/a", hostPath: "/dev/b", permissions: "rwm" }],
          annotations: { k: "v" },
          cdiDevices: [{ name: "x/y=z" }],
        },
      ],
    },
    "0a3c0a060a0141120162120a0a022f6312022f6818011a150a062f6465762f6112062f6465762f621a0372776d22060a016b1201762a070a05782f793d7a",
  ),
  row(
    ListAndWatchResponseSchema,
    { devices: [{ ID: "sriov-1", health: "Healthy", topology: { nodes: [{ ID: 1n }] } }] },
    "0a180a077372696f762d3112074865616c7468791a040a020801",
  ),
  row(
    PreferredAllocationRequestSchema,
    { containerRequests: [{ availableDeviceIDs: ["a", "b"], mustIncludeDeviceIDs: ["a"], allocationSize: 2 }] },
    "0a0b0a01610a01621201611802",
  ),
  row(
    ListPodResourcesResponseSchema,
    {
      podResources: [
        {
          name: "pod",
          namespace: "default",
          containers: [
            {
              name: "app",
              devices: [{ resourceName: "d/c", deviceIds: ["t1"], topology: { nodes: [{ ID: 1n }] } }],
              cpuIds: [2n, 3n],
              memory: [{ memoryType: "memory", size: 4096n }],
              dynamicResources: [
                {
                  claimName: "claim",
                  claimNamespace: "default",
                  claimResources: [
                    { cdiDevices: [{ name: "x/y=z" }], driverName: "drv", poolName: "pool", deviceName: "dev" },
                  ],
                },
              ],
            },
          ],
        },
      ],
    },
    "0a640a03706f64120764656661756c741a540a03617070120f0a03642f63120274311a040a0208011a020203220b0a066d656d6f72791080202a2b1205636c61696d1a0764656661756c7422190a070a05782f793d7a12036472761a04706f6f6c2203646576",
  ),
  row(
    X509SVIDResponseSchema,
    {
      svids: [
        {
          spiffeId: "spiffe://x/y",
          x509Svid: new Uint8Array([0x30, 1]),
          x509SvidKey: new Uint8Array([0x30, 2]),
          bundle: new Uint8Array([0x30, 3]),
          hint: "internal",
        },
      ],
      crl: [new Uint8Array([0x30, 4])],
      federatedBundles: { "spiffe://z": new Uint8Array([0x30, 5]) },
    },
    "0a240a0c7370696666653a2f2f782f79120230011a023002220230032a08696e7465726e616c120230041a100a0a7370696666653a2f2f7a12023005",
  ),
];

for (const { schema, message, hex } of rows) {
  test(`${schema.typeName} is encoded and decoded as the Go peers do`, () => {
    assert.equal(Buffer.from(toBinary(schema, create(schema, message))).toString("hex"), hex);
    assert.deepEqual(fromBinary(schema, new Uint8Array(Buffer.from(hex, "hex"))), message);
  });
}

test("SpiffeWorkloadAPI has no package, as its callers expect", () => {
  assert.equal(SpiffeWorkloadAPI.typeName, "SpiffeWorkloadAPI");
});
