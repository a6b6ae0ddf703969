import assert from "node:assert/strict";
import { test } from "node:test";
import type { Address, Link, Neighbour, Route, Rule } from "../kernel/index.ts";
import { changeText } from "./change.ts";
import { desiredNetdev, type RequestedNetdev } from "./desired.ts";
import { OUR_PROTOCOL, type Owned } from "./owned.ts";
import { planChanges } from "./plan.ts";
import type { ActualNetdev } from "./read.ts";
import { bareNetdev } from "./testing/bare-netdev.ts";

const IFINDEX = 7;
const OURS = OUR_PROTOCOL;
const link: Link = {
  index: IFINDEX,
  name: "nsm-1",
  altNames: [],
  up: true,
  carrier: true,
  mtu: 1500,
  minMtu: 68,
  maxMtu: 9000,
  address: "02:00:00:00:00:01",
  parentDevice: "0000:3b:02.1",
  parentBus: "pci",
  portName: undefined,
  kind: undefined,
  master: undefined,
  peerIndex: undefined,
  peerNetnsId: undefined,
};
const empty: ActualNetdev = {
  link,
  addresses: [],
  routes: [],
  rules: [],
  tables: new Set(),
  neighbours: [],
  ipv6Disabled: false,
  pingGroups: "0 2147483647",
};

function address(text: string, more: Partial<Address> = {}): Address {
  const [ip = "", length] = text.split("/");
  const base = {
    ifindex: IFINDEX,
    family: ip.includes(":") ? 6 : 4,
    address: ip,
    prefixLength: Number(length),
  } as const;
  return { ...base, protocol: OURS, permanent: true, tentative: false, duplicate: false, ...more };
}

function route(text: string, more: Partial<Route> = {}): Route {
  const [to = "", via] = text.split(" via ");
  const [destination = "", length] = to.split("/");
  const family = destination.includes(":") ? 6 : 4;
  const base = {
    family,
    destination,
    prefixLength: Number(length),
    gateway: via,
    ifindex: IFINDEX,
    table: 254,
  } as const;
  const metric = family === 6 ? 1024 : 0;
  const rest = { protocol: OURS, scope: 0, type: 1, metric, onlink: false, preferredSource: undefined };
  return { ...base, ...rest, ...more };
}

function rule(table: number, more: Partial<Rule> = {}): Rule {
  const selector = { from: undefined, ipProtocol: undefined, sourcePorts: undefined, destinationPorts: undefined };
  return { family: 4, ...selector, table, priority: 32_765, protocol: OURS, ...more };
}

function neighbour(ip: string, mac: string, more: Partial<Neighbour> = {}): Neighbour {
  return { ifindex: IFINDEX, family: 4, address: ip, mac, permanent: true, protocol: OURS, ...more };
}

interface Row {
  readonly says: string;
  readonly actual?: Partial<ActualNetdev>;
  readonly requested?: Partial<RequestedNetdev>;
  readonly owned?: Partial<Owned>;
  readonly first?: boolean;
  readonly plan: readonly string[];
}

const tcp80 = { protocol: "tcp", destinationPort: "80", routes: [] };
const actualTcp80 = { ipProtocol: 6, destinationPorts: { first: 80, last: 80 } };
const mac2 = "02:00:00:00:00:02";
const rows: readonly Row[] = [
  { says: "does nothing for a link that nothing is asked of", plan: [] },
  { says: "brings a link up", actual: { link: { ...link, up: false } }, plan: ["up"] },
  { says: "renames a link and brings it up again", requested: { name: "nsm-2" }, plan: ["rename to nsm-2", "up"] },
  { says: "sets another MAC and brings the link up again", requested: { mac: mac2 }, plan: [`mac ${mac2}`, "up"] },
  { says: "sets the MTU", requested: { mtu: 1400 }, plan: ["mtu 1400"] },
  { says: "leaves an MTU that was not ours", actual: { link: { ...link, mtu: 1300 } }, plan: [] },
  {
    says: "goes back to the original MTU when none is asked for any more",
    actual: { link: { ...link, mtu: 1300 } },
    owned: { mtu: true },
    plan: ["mtu 1500"],
  },
  {
    says: "opens ping sockets, once",
    actual: { pingGroups: "1 0" },
    first: true,
    plan: ["sysctl net/ipv4/ping_group_range=0 2147483647"],
  },
  { says: "leaves ping sockets alone later", actual: { pingGroups: "1 0" }, plan: [] },
  {
    says: "switches IPv6 on before it is used, and not otherwise",
    actual: { ipv6Disabled: true },
    requested: { addresses: ["2001:db8::1/64"] },
    plan: ["sysctl net/ipv6/conf/nsm-1/disable_ipv6=0", "add-address 2001:db8::1/64"],
  },
  {
    says: "leaves IPv6 off for IPv4",
    actual: { ipv6Disabled: true, addresses: [address("10.0.0.1/24")] },
    requested: { addresses: ["10.0.0.1/24"] },
    plan: [],
  },
  {
    says: "adds an address before it removes the other one",
    actual: { addresses: [address("10.0.0.1/24")] },
    requested: { addresses: ["10.0.0.2/24"] },
    plan: ["add-address 10.0.0.2/24", "remove-address 10.0.0.1/24"],
  },
  {
    says: "removes an IPv6 address first that only changes its length",
    actual: { addresses: [address("2001:db8::1/64")] },
    requested: { addresses: ["2001:db8::1/96"] },
    plan: ["remove-address 2001:db8::1/64", "add-address 2001:db8::1/96"],
  },
  {
    says: "leaves addresses that are not ours",
    actual: { addresses: [address("10.0.0.1/24", { protocol: 0 }), address("fe80::1/64", { protocol: 3 })] },
    plan: [],
  },
  {
    says: "removes an unmarked address that we remember",
    actual: { addresses: [address("10.0.0.1/24", { protocol: 0 })] },
    owned: { addresses: ["10.0.0.1/24"] },
    plan: ["remove-address 10.0.0.1/24"],
  },
  {
    says: "takes an address that another process has set already",
    actual: { addresses: [address("10.0.0.1/24", { protocol: 0 })] },
    requested: { addresses: ["10.0.0.1/24"] },
    plan: [],
  },
  {
    says: "exchanges the next hop of a route, the new one first",
    actual: { addresses: [address("10.0.0.1/24")], routes: [route("10.1.0.0/16 via 10.0.0.2")] },
    requested: { addresses: ["10.0.0.1/24"], routes: [{ prefix: "10.1.0.0/16", nextHop: "10.0.0.3" }] },
    plan: ["add-route 10.1.0.0/16 via 10.0.0.3 table 254", "remove-route 10.1.0.0/16 via 10.0.0.2 table 254"],
  },
  {
    says: "exchanges the next hop of an IPv6 route under a free metric, and comes back to the usual one",
    actual: { routes: [route("2001:db8:1::/48 via 2001:db8::2", { metric: 1023 })] },
    requested: { routes: [{ prefix: "2001:db8:1::/48", nextHop: "2001:db8::3" }] },
    plan: [
      "add-route 2001:db8:1::/48 via 2001:db8::3 table 254 metric 1024",
      "remove-route 2001:db8:1::/48 via 2001:db8::2 table 254 metric 1023",
    ],
  },
  {
    says: "comes before a foreign IPv6 route and leaves it",
    actual: { routes: [route("::/0 via fd00::1", { ifindex: 2, protocol: 3, metric: 512 })] },
    requested: { routes: [{ prefix: "::/0", nextHop: "2001:db8::1" }] },
    plan: ["add-route ::/0 via 2001:db8::1 table 254 metric 511"],
  },
  {
    says: "leaves routes of other links, of other makers and of other tables",
    actual: {
      routes: [
        route("10.1.0.0/16", { ifindex: 2 }),
        route("10.2.0.0/16", { protocol: 3 }),
        route("10.3.0.0/16", { ifindex: 3, table: 9 }),
      ],
    },
    plan: [],
  },
  {
    says: "gives each rule its own table, the lowest that is free, the first rule last so that it is asked first",
    actual: {
      routes: [route("10.0.0.0/8", { table: 1, protocol: 3, ifindex: 2 })],
      rules: [rule(2, { protocol: 0 })],
    },
    requested: { policies: [tcp80, { protocol: "udp", routes: [] }] },
    plan: [
      "add-route 0.0.0.0/0 table 3",
      "add-rule IPv4 from all proto 17 table 3",
      "add-route 0.0.0.0/0 table 4",
      "add-rule IPv4 from all proto 6 dport 80-80 table 4",
    ],
  },
  {
    says: "does nothing for a rule that is in force",
    actual: { rules: [rule(5, actualTcp80)], routes: [route("0.0.0.0/0", { table: 5 })] },
    requested: { policies: [tcp80] },
    plan: [],
  },
  {
    says: "mends the table of a rule whose routes went down with the link",
    actual: { rules: [rule(5, actualTcp80)] },
    requested: { policies: [tcp80] },
    owned: { tables: [5] },
    plan: ["add-route 0.0.0.0/0 table 5"],
  },
  {
    says: "makes another rule beside a foreign one of the same kind",
    actual: { rules: [rule(5, { ...actualTcp80, protocol: 0 })] },
    requested: { policies: [tcp80] },
    plan: ["add-route 0.0.0.0/0 table 1", "add-rule IPv4 from all proto 6 dport 80-80 table 1"],
  },
  {
    says: "leaves a rule of another of our links, known by its table",
    actual: { rules: [rule(5, actualTcp80)], routes: [route("0.0.0.0/0", { table: 5, ifindex: 9 })] },
    plan: [],
  },
  {
    says: "removes a rule before its table, also one that an attempt left without a rule",
    actual: {
      rules: [rule(5, actualTcp80)],
      routes: [route("0.0.0.0/0", { table: 5 }), route("10.0.0.0/8", { table: 6 })],
    },
    plan: [
      "remove-rule IPv4 from all proto 6 dport 80-80 table 5",
      "remove-route 0.0.0.0/0 table 5",
      "remove-route 10.0.0.0/8 table 6",
    ],
  },
  {
    says: "sets a neighbour in the place of one that was learned, and of our own one",
    actual: {
      neighbours: [neighbour("10.0.0.9", mac2, { permanent: false, protocol: 0 }), neighbour("10.0.0.8", mac2)],
    },
    requested: {
      neighbours: [
        { address: "10.0.0.9", mac: mac2 },
        { address: "10.0.0.8", mac: "02:00:00:00:00:03" },
      ],
    },
    plan: ["add-neighbour 10.0.0.9 at 02:00:00:00:00:02", "add-neighbour 10.0.0.8 at 02:00:00:00:00:03"],
  },
  {
    says: "removes our neighbours and leaves the others",
    actual: {
      neighbours: [
        neighbour("10.0.0.7", mac2),
        neighbour("10.0.0.8", mac2, { protocol: 0 }),
        neighbour("10.0.0.9", mac2, { permanent: false, protocol: 0 }),
      ],
    },
    plan: ["remove-neighbour 10.0.0.7"],
  },
  {
    says: "leaves a neighbour that carries our mark and is not permanent: the kernel's own learning",
    actual: { neighbours: [neighbour("10.0.0.7", mac2, { permanent: false })] },
    plan: [],
  },
  {
    says: "leaves an address that another process has marked, though we remember the same one",
    actual: { addresses: [address("10.0.0.1/24", { protocol: 3 })] },
    owned: { addresses: ["10.0.0.1/24"] },
    plan: [],
  },
  {
    says: "adds an address before the routes that need it",
    requested: { addresses: ["10.0.0.1/24"], routes: [{ prefix: "10.1.0.0/16", nextHop: "10.0.0.3" }] },
    plan: ["add-address 10.0.0.1/24", "add-route 10.1.0.0/16 via 10.0.0.3 table 254"],
  },
  {
    says: "removes a rule before the routes of the main table too",
    actual: { rules: [rule(5, actualTcp80)], routes: [route("10.1.0.0/16")] },
    owned: { tables: [5] },
    plan: ["remove-rule IPv4 from all proto 6 dport 80-80 table 5", "remove-route 10.1.0.0/16 table 254"],
  },
  {
    says: "gives a second rule for the same packets a table of its own",
    actual: { rules: [rule(5, actualTcp80)] },
    requested: {
      policies: [
        { ...tcp80, routes: [{ prefix: "10.1.0.0/16" }] },
        { ...tcp80, routes: [{ prefix: "10.2.0.0/16" }] },
      ],
    },
    owned: { tables: [5] },
    plan: [
      "add-route 10.2.0.0/16 table 5",
      "add-route 10.1.0.0/16 table 1",
      "add-rule IPv4 from all proto 6 dport 80-80 table 1",
    ],
  },
  {
    says: "removes another rule of ours that leads to the table of one that stays",
    actual: {
      rules: [rule(5, { ipProtocol: 17 }), rule(5, actualTcp80)],
      routes: [route("0.0.0.0/0", { table: 5 })],
    },
    requested: { policies: [tcp80] },
    plan: ["remove-rule IPv4 from all proto 17 table 5"],
  },
  {
    says: "exchanges the next hop of an IPv6 route that has the usual metric under the one below",
    actual: { routes: [route("2001:db8:1::/48 via 2001:db8::2")] },
    requested: { routes: [{ prefix: "2001:db8:1::/48", nextHop: "2001:db8::3" }] },
    plan: [
      "add-route 2001:db8:1::/48 via 2001:db8::3 table 254 metric 1023",
      "remove-route 2001:db8:1::/48 via 2001:db8::2 table 254 metric 1024",
    ],
  },
  {
    says: "switches IPv6 on under the name that the link has by then",
    actual: { ipv6Disabled: true },
    requested: { name: "nsm-2", addresses: ["2001:db8::1/64"] },
    plan: ["rename to nsm-2", "sysctl net/ipv6/conf/nsm-2/disable_ipv6=0", "up", "add-address 2001:db8::1/64"],
  },
  {
    says: "leaves ping sockets alone where they cannot be read",
    actual: { pingGroups: undefined },
    first: true,
    plan: [],
  },
  {
    says: "adds an IPv4 address before it removes the same one with another length",
    actual: { addresses: [address("10.0.0.1/24")] },
    requested: { addresses: ["10.0.0.1/25"] },
    plan: ["add-address 10.0.0.1/25", "remove-address 10.0.0.1/24"],
  },
  {
    says: "gives two IPv6 routes to one place a metric each",
    requested: {
      routes: ["2001:db8::2", "2001:db8::3"].map((nextHop) => ({ prefix: "2001:db8:1::/48", nextHop })),
    },
    plan: [
      "add-route 2001:db8:1::/48 via 2001:db8::2 table 254 metric 1024",
      "add-route 2001:db8:1::/48 via 2001:db8::3 table 254 metric 1023",
    ],
  },
  {
    says: "gives an IPv6 route no metric below 1, which would be the usual one",
    actual: { routes: [route("::/0 via fd00::1", { ifindex: 2, protocol: 3, metric: 1 })] },
    requested: { routes: [{ prefix: "::/0", nextHop: "2001:db8::1" }] },
    plan: ["add-route ::/0 via 2001:db8::1 table 254 metric 1"],
  },
  {
    says: "leaves a rule of the pod that leads to a table of ours",
    actual: { rules: [rule(5, { protocol: 0 })] },
    owned: { tables: [5] },
    plan: [],
  },
  {
    says: "takes any MTU where the driver names no limit",
    actual: { link: { ...link, maxMtu: 0 } },
    requested: { mtu: 9001 },
    plan: ["mtu 9001"],
  },
];

function plan(row: Omit<Row, "says" | "plan">): string[] {
  const owned = { addresses: [], tables: [], mtu: false, ...row.owned };
  const desired = desiredNetdev({ ...bareNetdev, ...row.requested });
  const first = row.first === true;
  const actual = { ...empty, ...row.actual };
  const tables = new Set([...actual.routes, ...actual.rules].map(({ table }) => table));
  return planChanges({ actual: { ...actual, tables }, desired, owned, originalMtu: 1500, first }).map(changeText);
}

for (const row of rows) {
  test(`planChanges() ${row.says}`, () => assert.deepEqual(plan(row), row.plan));
}

test("planChanges() puts an IPv4 route before others to the same place, with the scope that a network on the link has", () => {
  const prefixes = ["10.1.0.0/16", "2001:db8:1::/48"];
  const routes = [...prefixes.map((prefix) => ({ prefix })), { prefix: "10.2.0.0/16", nextHop: "10.0.0.2" }];
  const desired = desiredNetdev({ ...bareNetdev, routes });
  const planned = planChanges({ actual: empty, desired, originalMtu: 1500 });
  const how = planned.map((change) => {
    assert.equal(change.kind, "add-route");
    const { scope, prepend, onlink } = "route" in change ? change.route : assert.fail("it is a route");
    return [scope, prepend, onlink];
  });
  assert.deepEqual(how, [
    [253, true, false],
    [0, false, false],
    [0, true, true],
  ]);
});

const refused: readonly (Omit<Row, "plan"> & { readonly message: RegExp })[] = [
  {
    says: "an MTU beyond the driver",
    requested: { mtu: 9001 },
    message: /Cannot set MTU 9001 on link nsm-1: its driver takes 68 to 9000/,
  },
  {
    says: "a neighbour that another process has set otherwise",
    actual: { neighbours: [neighbour("10.0.0.9", mac2, { protocol: 3 })] },
    requested: { neighbours: [{ address: "10.0.0.9", mac: "02:00:00:00:00:03" }] },
    message: /Cannot set neighbour 10.0.0.9: another process has set it permanently to 02:00:00:00:00:02/,
  },
  {
    says: "a rule when thousands of tables are in use",
    actual: { rules: Array.from({ length: 4096 }, (_, i) => rule(i + 1, { protocol: 0 })) },
    requested: { policies: [tcp80] },
    message: /Cannot find a free routing table/,
  },
];
for (const { says, message, ...row } of refused) {
  test(`planChanges() refuses ${says}`, () => assert.throws(() => plan(row), message));
}
