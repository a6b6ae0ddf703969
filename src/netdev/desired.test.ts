import assert from "node:assert/strict";
import { test } from "node:test";
import { desiredNetdev, type RequestedNetdev, routeText, ruleSelector } from "./desired.ts";
import { prefixText } from "./prefix.ts";
import { bareNetdev } from "./testing/bare-netdev.ts";

const routesOf = (requested: Partial<RequestedNetdev>) =>
  desiredNetdev({ ...bareNetdev, ...requested }).routes.map(routeText);

const rows: readonly { says: string; requested: Partial<RequestedNetdev>; routes: readonly string[] }[] = [
  {
    says: "leads to an address of the other end outside our networks",
    requested: { addresses: ["10.0.0.1/32", "2001:db8::1/128"], peerAddresses: ["10.0.0.2/32", "2001:db8::2/128"] },
    routes: ["10.0.0.2/32 via link", "2001:db8::2/128 via link"],
  },
  {
    says: "is not needed to an address inside our network",
    requested: { addresses: ["10.0.0.1/24"], peerAddresses: ["10.0.0.2/24"] },
    routes: [],
  },
  {
    says: "goes through the first address of the other end, of its family",
    requested: {
      addresses: ["10.0.0.1/24", "2001:db8::1/64"],
      peerAddresses: ["10.0.0.2/24", "10.0.0.3/24", "2001:db8::2/64"],
      routes: [{ prefix: "10.1.0.0/16" }, { prefix: "2001:db8:1::/48" }],
    },
    routes: ["10.1.0.0/16 via 10.0.0.2", "2001:db8:1::/48 via 2001:db8::2"],
  },
  {
    says: "inside a network of the other end goes over the link",
    requested: { addresses: ["10.5.0.1/32"], peerAddresses: ["10.1.0.2/16"], routes: [{ prefix: "10.1.7.0/24" }] },
    routes: ["10.1.0.2/32 via link", "10.1.7.0/24 via link"],
  },
  {
    says: "keeps a next hop that was requested for",
    requested: {
      peerAddresses: ["10.0.0.2/32"],
      addresses: ["10.0.0.1/24"],
      routes: [{ prefix: "0.0.0.0/0", nextHop: "10.0.0.9" }],
    },
    routes: ["0.0.0.0/0 via 10.0.0.9"],
  },
  {
    says: "without a peer address goes over the link, once",
    requested: { routes: [{ prefix: "10.1.0.1/16" }, { prefix: "10.1.0.2/16", nextHop: "" }] },
    routes: ["10.1.0.0/16 via link"],
  },
];
for (const { says, requested, routes } of rows) {
  test(`desiredNetdev() a route ${says}`, () => assert.deepEqual(routesOf(requested), routes));
}

test("desiredNetdev() gives a rule without routes a default route of its own family", () => {
  const policies = [
    { from: "2001:db8::7/64", routes: [] },
    { from: "", protocol: "", destinationPort: "80", routes: [] },
    { from: "10.0.0.1", protocol: "udp", sourcePort: "1-2", routes: [{ prefix: "10.3.0.0/16", nextHop: "10.0.0.3" }] },
  ];
  const { rules } = desiredNetdev({ ...bareNetdev, policies });
  assert.deepEqual(
    rules.map((rule) => [ruleSelector(rule), rule.routes.map(routeText)]),
    [
      ["IPv6 from 2001:db8::/64 proto * sport * dport *", ["::/0 via link"]],
      ["IPv4 from all proto * sport * dport 80-80", ["0.0.0.0/0 via link"]],
      ["IPv4 from 10.0.0.1/32 proto 17 sport 1-2 dport *", ["10.3.0.0/16 via 10.0.0.3"]],
    ],
  );
});

test("desiredNetdev() drops doubles; of two neighbours with one address the last counts", () => {
  const mac = "02:00:00:00:00:01";
  const desired = desiredNetdev({
    ...bareNetdev,
    addresses: ["10.0.0.1/24", "10.0.0.1/24", "10.0.0.1/16"],
    policies: [{ routes: [] }, { routes: [] }],
    neighbours: [
      { address: "10.0.0.2", mac },
      { address: "10.0.0.2", mac: "02:00:00:00:00:02" },
    ],
  });
  assert.deepEqual(desired.addresses.map(prefixText), ["10.0.0.1/24", "10.0.0.1/16"]);
  assert.equal(desired.rules.length, 1);
  assert.deepEqual(desired.neighbours, [{ address: "10.0.0.2", mac: "02:00:00:00:00:02" }]);
  assert.deepEqual([desired.mtu, desired.mac, desired.vlan], [undefined, undefined, 0]);
});

const refused: readonly (readonly [says: string, requested: Partial<RequestedNetdev>, message: RegExp])[] = [
  [
    "an IPv4 route in an IPv6 rule",
    { policies: [{ from: "2001:db8::/64", routes: [{ prefix: "10.0.0.0/8" }] }] },
    /IPv6 rule/,
  ],
  ["IPv6 over an MTU below 1280", { mtu: 1279, addresses: ["2001:db8::1/64"] }, /IPv6 is wanted on the link too/],
  ["more than 1024 routes", { routes: new Array(1025).fill({ prefix: "10.0.0.0/8" }) }, /"1025 entries" as route/],
  ["more than 1024 rules", { policies: new Array(1025).fill({ routes: [] }) }, /"1025 entries" as rule/],
  ["a neighbour without an address", { neighbours: [{ address: "", mac: "02:00:00:00:00:01" }] }, /as neighbour/],
];
for (const [says, requested, message] of refused) {
  test(`desiredNetdev() refuses ${says}`, () =>
    assert.throws(() => desiredNetdev({ ...bareNetdev, ...requested }), message));
}

test("desiredNetdev() takes IPv6 over an MTU of 1280, and as many entries as there may be", () => {
  const at = (requested: Partial<RequestedNetdev>) => desiredNetdev({ ...bareNetdev, ...requested });
  assert.equal(at({ mtu: 1280, addresses: ["2001:db8::1/64"] }).mtu, 1280);
  assert.equal(at({ mtu: 68, addresses: ["10.0.0.1/24"] }).mtu, 68);
  const routes = Array.from({ length: 1024 }, (_, i) => ({ prefix: `10.${i >> 8}.${i & 255}.0/24` }));
  assert.equal(at({ routes }).routes.length, 1024);
});
