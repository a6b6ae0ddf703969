// What `ip` (iproute2 6.1.0, on Linux 6.18) sends, captured in a namespace of its own with
//   unshare -n strace -e trace=sendmsg -e write=3 <command>
// after `ip link add va type veth peer name vb`. The sequence number of the capture is left out: ours is there.
import assert from "node:assert/strict";
import { test } from "node:test";
import { encodeAddress } from "./address.ts";
import { encodeAltName, encodeDeleteLink, encodeNewLink, encodeSetLink } from "./link.ts";
import { encodeMessage, type NetlinkRequest } from "./message.ts";
import { encodeNeighbour } from "./neighbour.ts";
import { encodeRoute } from "./route.ts";
import { encodeRule } from "./rule.ts";
import { encodeSetVf } from "./virtual-function.ts";

const SEQ = 0x6b04b150;
const from4 = { address: "10.0.0.0", prefixLength: 24 };
const from6 = { address: "2001:db8::", prefixLength: 64 };
const route4 = { family: 4, destination: "10.1.0.0", prefixLength: 16, gateway: "10.0.0.2", ifindex: 3 } as const;
const route6 = { family: 6, destination: "2001:db8:1::", prefixLength: 48, ifindex: 3 } as const;
const hostRoute = { family: 4, destination: "10.2.0.1", prefixLength: 32, ifindex: 3, table: 300 } as const;

const rows: readonly { readonly command: string; readonly ours: NetlinkRequest; readonly bytes: string }[] = [
  {
    command: "ip link set dev va up",
    ours: encodeSetLink(3, { up: true }),
    bytes: "20000000 10000500 50b1046b 00000000 00000000 03000000 01000000 01000000",
  },
  {
    command: "ip link set dev va mtu 1400",
    ours: encodeSetLink(3, { mtu: 1400 }),
    bytes: "28000000 10000500 50b1046b 00000000 00000000 03000000 00000000 00000000 08000400 78050000",
  },
  {
    command: "ip link set dev va address 02:00:00:00:00:01",
    ours: encodeSetLink(3, { address: "02:00:00:00:00:01" }),
    bytes: "2c000000 10000500 50b1046b 00000000 00000000 03000000 00000000 00000000 0a000100 02000000 00010000",
  },
  {
    command: "ip link set dev vb down name vc",
    ours: encodeSetLink(2, { up: false, name: "vc" }),
    bytes: "28000000 10000500 50b1046b 00000000 00000000 02000000 00000000 01000000 07000300 76630000",
  },
  {
    command: "ip link set ve0 master brz",
    ours: encodeSetLink(6, { master: 4 }),
    bytes: "28000000 10000500 50b1046b 00000000 00000000 06000000 00000000 00000000 08000a00 04000000",
  },
  {
    command: "ip link property add dev va altname longer-name-of-va-0",
    ours: encodeAltName("add", 3, "longer-name-of-va-0"),
    bytes:
      "3c000000 6c00050e 50b1046b 00000000 00000000 03000000 00000000 00000000 " +
      "1c003480 18003500 6c6f6e67 65722d6e 616d652d 6f662d76 612d3000",
  },
  {
    command: "ip link property del dev va altname longer-name-of-va-0",
    ours: encodeAltName("remove", 3, "longer-name-of-va-0"),
    bytes:
      "3c000000 6d000500 50b1046b 00000000 00000000 03000000 00000000 00000000 " +
      "1c003480 18003500 6c6f6e67 65722d6e 616d652d 6f662d76 612d3000",
  },
  {
    command: "ip link add brz type bridge",
    ours: encodeNewLink({ kind: "bridge", name: "brz" }),
    bytes:
      "38000000 10000506 50b1046b 00000000 00000000 00000000 00000000 00000000 " +
      "08000300 62727a00 10001200 0a000100 62726964 67650000",
  },
  {
    command: "ip link add ve0 type veth peer name ve1",
    ours: encodeNewLink({ kind: "veth", name: "ve0", peer: { name: "ve1" } }),
    bytes:
      "54000000 10000506 50b1046b 00000000 00000000 00000000 00000000 00000000 08000300 76653000 " +
      "2c001200 08000100 76657468 20000200 1c000100 00000000 00000000 00000000 00000000 08000300 76653100",
  },
  {
    command: "ip link del ve0",
    ours: encodeDeleteLink(6),
    bytes: "20000000 11000500 50b1046b 00000000 00000000 06000000 00000000 00000000",
  },
  {
    command: "ip link set va vf 0 mac 02:00:00:00:00:05",
    ours: encodeSetVf(3, 0, { mac: "02:00:00:00:00:05" }),
    bytes:
      "50000000 10000500 50b1046b 00000000 00000000 03000000 00000000 00000000 30001600 2c000100 28000100 " +
      "00000000 02000000 00050000 00000000 00000000 00000000 00000000 00000000 00000000",
  },
  {
    command: "ip link set va vf 3 vlan 100",
    ours: encodeSetVf(3, 3, { vlan: 100 }),
    bytes:
      "38000000 10000500 50b1046b 00000000 00000000 03000000 00000000 00000000 " +
      "18001600 14000100 10000200 03000000 64000000 00000000",
  },
  {
    command: "ip link set va vf 1 spoofchk on",
    ours: encodeSetVf(3, 1, { spoofCheck: true }),
    bytes:
      "34000000 10000500 50b1046b 00000000 00000000 03000000 00000000 00000000 14001600 10000100 0c000400 01000000 01000000",
  },
  {
    command: "ip link set va vf 1 trust off",
    ours: encodeSetVf(3, 1, { trust: false }),
    bytes:
      "34000000 10000500 50b1046b 00000000 00000000 03000000 00000000 00000000 14001600 10000100 0c000900 01000000 00000000",
  },
  {
    command: "ip link set va vf 1 state enable",
    ours: encodeSetVf(3, 1, { linkState: "enable" }),
    bytes:
      "34000000 10000500 50b1046b 00000000 00000000 03000000 00000000 00000000 14001600 10000100 0c000500 01000000 01000000",
  },
  {
    command: "ip link set va vf 1 min_tx_rate 10 max_tx_rate 200",
    ours: encodeSetVf(3, 1, { rate: { minMbps: 10, maxMbps: 200 } }),
    bytes:
      "38000000 10000500 50b1046b 00000000 00000000 03000000 00000000 00000000 " +
      "18001600 14000100 10000600 01000000 0a000000 c8000000",
  },
  {
    command: "ip addr add 10.0.0.1/24 broadcast 10.0.0.255 dev va",
    ours: encodeAddress("add", { ifindex: 3, address: "10.0.0.1", prefixLength: 24, broadcast: "10.0.0.255" }),
    bytes:
      "30000000 14000506 50b1046b 00000000 02180000 03000000 08000200 0a000001 08000400 0a0000ff 08000100 0a000001",
  },
  {
    command: "ip addr add 2001:db8::1/64 dev va nodad",
    ours: encodeAddress("add", { ifindex: 3, address: "2001:db8::1", prefixLength: 64, noDad: true }),
    bytes:
      "40000000 14000506 50b1046b 00000000 0a400200 03000000 " +
      "14000200 20010db8 00000000 00000000 00000001 14000100 20010db8 00000000 00000000 00000001",
  },
  {
    command: "ip route add 10.1.0.0/16 via 10.0.0.2 dev va onlink proto 110",
    ours: encodeRoute("add", { ...route4, protocol: 110, onlink: true }),
    bytes:
      "34000000 18000506 50b1046b 00000000 02100000 fe6e0001 04000000 08000100 0a010000 08000500 0a000002 08000400 03000000",
  },
  {
    command: "ip route add 2001:db8:1::/48 via 2001:db8::2 dev va proto 110",
    ours: encodeRoute("add", { ...route6, gateway: "2001:db8::2", protocol: 110 }),
    bytes:
      "4c000000 18000506 50b1046b 00000000 0a300000 fe6e0001 00000000 14000100 20010db8 00010000 00000000 00000000 " +
      "14000500 20010db8 00000000 00000000 00000002 08000400 03000000",
  },
  {
    command: "ip route add 10.2.0.1/32 dev va table 300",
    ours: encodeRoute("add", { ...hostRoute, scope: 253, protocol: 3 }),
    bytes:
      "34000000 18000506 50b1046b 00000000 02200000 0003fd01 00000000 08000100 0a020001 08000f00 2c010000 08000400 03000000",
  },
  {
    command: "ip route del 10.1.0.0/16 via 10.0.0.2 dev va proto 110",
    ours: encodeRoute("delete", { ...route4, protocol: 110 }),
    bytes:
      "34000000 19000500 50b1046b 00000000 02100000 fe6eff00 00000000 08000100 0a010000 08000500 0a000002 08000400 03000000",
  },
  {
    command: "ip rule add from 10.0.0.0/24 ipproto tcp dport 80-90 sport 1000 table 7 protocol 110",
    ours: encodeRule("add", {
      family: 4,
      from: from4,
      ipProtocol: 6,
      destinationPorts: { first: 80, last: 90 },
      sourcePorts: { first: 1000, last: 1000 },
      table: 7,
      protocol: 110,
    }),
    bytes:
      "44000000 20000506 50b1046b 00000000 02001800 07000001 00000000 08000200 0a000000 " +
      "05001600 06000000 08001800 50005a00 08001700 e803e803 05001500 6e000000",
  },
  {
    command: "ip -6 rule add from 2001:db8::/64 table 300",
    ours: encodeRule("add", { family: 6, from: from6, table: 300 }),
    bytes:
      "38000000 20000506 50b1046b 00000000 0a004000 00000001 00000000 " +
      "14000200 20010db8 00000000 00000000 00000000 08000f00 2c010000",
  },
  {
    command: "ip neigh replace 10.0.0.9 lladdr 02:00:00:00:00:09 dev va protocol 110",
    ours: encodeNeighbour("add", { ifindex: 3, address: "10.0.0.9", mac: "02:00:00:00:00:09", protocol: 110 }),
    bytes:
      "38000000 1c000505 50b1046b 00000000 02000000 03000000 80000000 " +
      "05000c00 6e000000 08000100 0a000009 0a000200 02000000 00090000",
  },
];

for (const row of rows) {
  test(`netlink requests are those of: ${row.command}`, () => {
    assert.equal(encodeMessage(row.ours, SEQ).toString("hex"), row.bytes.replaceAll(" ", ""));
  });
}
