import assert from "node:assert/strict";
import { test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { ConnectionContextSchema } from "../../gen/connectioncontext_pb.ts";
import type { DesiredKernel } from "../../nsm/index.ts";
import { requestedNetdev } from "./requested-netdev.ts";

const desired = (bare: boolean) => ({ type: "KERNEL", interfaceName: "nsm-1", bare }) as unknown as DesiredKernel;
const route = (prefix: string) => ({ prefix, nextHop: "10.0.0.9" });

const context = create(ConnectionContextSchema, {
  MTU: 1400,
  ethernetContext: { srcMac: "02:00:00:00:00:01", dstMac: "02:00:00:00:00:02", vlanTag: 5 },
  ipContext: {
    srcIpAddrs: ["10.0.0.1/32"],
    dstIpAddrs: ["10.0.0.2/32"],
    srcRoutes: [route("10.1.0.0/16")],
    dstRoutes: [route("10.2.0.0/16")],
    policies: [{ from: "10.0.0.1/32", proto: "tcp", srcPort: "1", dstPort: "2", routes: [route("10.3.0.0/16")] }],
    ipNeighbors: [{ ip: "10.0.0.2", hardwareAddress: "02:00:00:00:00:03" }],
  },
});

test("requestedNetdev() takes the source side, whose client we are, and each port of a policy for its own", () => {
  assert.deepEqual(requestedNetdev(desired(false), context), {
    name: "nsm-1",
    mtu: 1400,
    mac: "02:00:00:00:00:01",
    vlan: 5,
    addresses: ["10.0.0.1/32"],
    peerAddresses: ["10.0.0.2/32"],
    routes: [route("10.1.0.0/16")],
    policies: [
      { from: "10.0.0.1/32", protocol: "tcp", sourcePort: "1", destinationPort: "2", routes: [route("10.3.0.0/16")] },
    ],
    neighbours: [{ address: "10.0.0.2", mac: "02:00:00:00:00:03" }],
  });
});

test("requestedNetdev() gives a client with VLAN devices of its own the bare interface, and one without a context no more", () => {
  const nothing = { addresses: [], peerAddresses: [], routes: [], policies: [], neighbours: [] };
  const bare = { name: "nsm-1", mtu: undefined, ...nothing };
  assert.deepEqual(requestedNetdev(desired(true), context), { ...bare, mac: "02:00:00:00:00:01", vlan: 5 });
  assert.deepEqual(requestedNetdev(desired(false), undefined), { ...bare, mac: "", vlan: 0 });
  const noMtu = create(ConnectionContextSchema, { MTU: 0 });
  assert.equal(requestedNetdev(desired(false), noMtu).mtu, undefined, "0 is none");
});
