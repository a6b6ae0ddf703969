import assert from "node:assert/strict";
import { test } from "node:test";
import type { Address, DefaultRoute, Link } from "../kernel/index.ts";
import { describeHostUse, type HostNetwork, hostUseOf, hostUseWords, isLinkLocal } from "./host-use.ts";

const link = (index: number, name: string, more: Partial<Link> = {}) => ({ index, name, ...more }) as Link;
const address = (ifindex: number, text: string) => {
  const [plain = "", length] = text.split("/");
  return { ifindex, address: plain, prefixLength: Number(length) } as Address;
};
const route = (ifindexes: readonly number[], more: Partial<DefaultRoute> = {}): DefaultRoute => {
  return { family: 4, table: 254, gateway: undefined, ifindexes, ...more };
};
const VF = 7;

interface Row {
  readonly says: string;
  readonly vf?: Partial<Link>;
  readonly links?: readonly Link[];
  readonly addresses?: readonly Address[];
  readonly routes?: readonly DefaultRoute[];
  readonly signs: string;
}

const rows: readonly Row[] = [
  { says: "nothing", signs: "" },
  { says: "that it is up", vf: { up: true, carrier: true }, signs: "" },
  { says: "an address", addresses: [address(VF, "10.0.0.9/24")], signs: "has address 10.0.0.9/24" },
  { says: "an address of its own only", addresses: [address(VF, "10.0.0.9/32")], signs: "has address 10.0.0.9/32" },
  { says: "an IPv6 address", addresses: [address(VF, "2001:db8::9/64")], signs: "has address 2001:db8::9/64" },
  { says: "a unique local address", addresses: [address(VF, "fd00::9/8")], signs: "has address fd00::9/8" },
  {
    says: "link-local addresses",
    addresses: [address(VF, "fe80::1/64"), address(VF, "febf::1/10"), address(VF, "169.254.1.1/16")],
    signs: "",
  },
  { says: "an address of another link", addresses: [address(8, "10.0.0.9/24")], signs: "" },
  { says: "a default route", routes: [route([VF])], signs: "has the IPv4 default route" },
  {
    says: "a default route with a gateway",
    routes: [route([VF], { family: 6, gateway: "fe80::1" })],
    signs: "has the IPv6 default route via fe80::1",
  },
  { says: "one of several next hops", routes: [route([8, VF])], signs: "has the IPv4 default route" },
  { says: "a default route of another link", routes: [route([8])], signs: "" },
  {
    says: "a bridge",
    vf: { master: 8 },
    links: [link(8, "br0", { kind: "bridge" })],
    signs: "is a port of br0 (bridge)",
  },
  { says: "a VRF", vf: { master: 8 }, links: [link(8, "red", { kind: "vrf" })], signs: "is a port of red (vrf)" },
  { says: "a master that is not in the list", vf: { master: 8 }, signs: "is a port of link 8 (device)" },
  { says: "no master, reported as 0", vf: { master: 0 }, signs: "" },
  {
    says: "a VLAN on it",
    links: [link(8, "v0.9", { kind: "vlan", peerIndex: VF })],
    signs: "carries v0.9 (vlan)",
  },
  {
    says: "an upper of the same index in another namespace",
    links: [link(8, "v0.9", { kind: "vlan", peerIndex: VF, peerNetnsId: 3 })],
    signs: "",
  },
  { says: "the other end of a veth", links: [link(8, "veth0", { kind: "veth", peerIndex: VF })], signs: "" },
  { says: "itself, as drivers report", vf: { peerIndex: VF }, signs: "" },
  {
    says: "all of it",
    vf: { master: 8 },
    links: [link(8, "bond0", { kind: "bond" }), link(9, "m0", { kind: "macvlan", peerIndex: VF })],
    addresses: [address(VF, "10.0.0.9/24")],
    routes: [route([VF])],
    signs: "has the IPv4 default route, has address 10.0.0.9/24, is a port of bond0 (bond), and 1 more",
  },
];
for (const { says, vf, links = [], addresses = [], routes = [], signs } of rows) {
  test(`hostUseOf() knows of a link with ${says}`, () => {
    const network: HostNetwork = { links: [link(VF, "v0", vf), ...links], addresses, defaultRoutes: routes };
    const uses = hostUseOf(network, VF);
    if (signs === "") assert.deepEqual(uses, []);
    else assert.equal(hostUseWords("v0", uses).what, `v0 ${signs}`);
  });
}

test("hostUseOf() knows nothing of a link that is not there, whatever hangs on its index", () => {
  const network = { links: [], addresses: [address(VF, "10.0.0.9/24")], defaultRoutes: [route([VF])] };
  assert.deepEqual(hostUseOf(network, VF), []);
});

test("hostUseWords() says how to end each use", () => {
  const uses = hostUseOf(
    {
      links: [link(VF, "v0", { master: 8 }), link(8, "br0"), link(9, "v0.9", { kind: "vlan", peerIndex: VF })],
      addresses: [],
      defaultRoutes: [route([VF], { family: 6 })],
    },
    VF,
  );
  assert.equal(
    hostUseWords("v0", uses).toEnd,
    "ip -6 route del default dev v0 && ip link set v0 nomaster && ip link del v0.9",
  );
});

test("describeHostUse() is of the first device that is used, be it by one sign, and of none where none is", () => {
  const use = (host: string) => ({ kind: "address", address: `10.0.0.${host}/24` }) as const;
  const free = { ifname: "v0", ifindex: 7, uses: [] };
  const used = { ifname: "v1", ifindex: 8, uses: [use("9")] };
  assert.equal(describeHostUse([free, used, { ...used, ifname: "v2" }])?.what, "v1 has address 10.0.0.9/24");
  assert.deepEqual([describeHostUse([free]), describeHostUse()], [undefined, undefined]);
  const more = (count: number) => /, and .* more/.exec(hostUseWords("v0", Array(count).fill(use("9"))).what)?.[0];
  assert.deepEqual([more(3), more(4)], [undefined, ", and 1 more"]);
});

test("isLinkLocal() draws the line where the RFCs do", () => {
  const linkLocal = [
    "fe7f::1",
    "fe80::",
    "febf:ffff::1",
    "fec0::1",
    "169.253.0.1",
    "169.254.0.1",
    "169.255.0.1",
    "fe8::1",
  ];
  assert.deepEqual(
    linkLocal.filter((text) => isLinkLocal({ address: text })),
    ["fe80::", "febf:ffff::1", "169.254.0.1"],
  );
});
