// What of a request does not show in golden.test.ts, whose requests are those that iproute2 sends.
import assert from "node:assert/strict";
import { test } from "node:test";
import { decodeAddress, encodeAddress } from "./address.ts";
import { encodeAttributes } from "./attribute.ts";
import { encodeStruct, fibRuleHdr, ifaddrmsg, ifinfomsg, ndmsg, rtmsg } from "./layout.ts";
import { encodeGetLink, isNamedOrAbove } from "./link.ts";
import { type NetlinkRequest, NLM_F_EXCL } from "./message.ts";
import { decodeNeighbour, encodeNeighbour } from "./neighbour.ts";
import { rawAttributes } from "./raw-attributes.ts";
import { encodeRoute, isDefaultRoute } from "./route.ts";
import { encodeRule } from "./rule.ts";
import { encodeSetVf } from "./virtual-function.ts";

const messageOf = (body: Uint8Array) => ({ type: 0, flags: 0, seq: 1, port: 1, body: Buffer.from(body) });
const typesOf = ({ body }: NetlinkRequest, layout: { readonly size: number }) =>
  rawAttributes(Buffer.from(body).subarray(layout.size)).map(({ type }) => type);

test("encodeAddress() deletes an address by itself, whatever else was said of it", () => {
  const address = { ifindex: 7, address: "10.0.0.1", prefixLength: 24 };
  const full = { ...address, broadcast: "10.0.0.255", noDad: true, protocol: 110 };
  assert.deepEqual(encodeAddress("delete", full), encodeAddress("delete", address));
  assert.notDeepEqual(encodeAddress("add", full), encodeAddress("add", address));
  assert.deepEqual(typesOf(encodeAddress("delete", address), ifaddrmsg), [2, 1]);
  assert.equal(decodeAddress(messageOf(encodeAddress("delete", full).body))?.address, "10.0.0.1");
});

test("encodeNeighbour() deletes one in whatever state, and decodeNeighbour() takes none that was learned for a permanent one", () => {
  const neighbour = { ifindex: 7, address: "10.0.0.9", mac: "02:00:00:00:00:09", protocol: 110 };
  const isPermanent = (body: Uint8Array) => decodeNeighbour(messageOf(body))?.permanent;
  assert.equal(isPermanent(encodeNeighbour("add", neighbour).body), true);
  assert.equal(isPermanent(encodeNeighbour("delete", neighbour).body), false);
  const reachable = Buffer.from(encodeNeighbour("add", neighbour).body);
  encodeStruct(ndmsg, { family: 2, index: 7, state: 2 }).copy(reachable);
  assert.equal(isPermanent(reachable), false);
});

test("encodeRoute() and encodeRule() name no network of length 0, which means all, and put a route before others on request", () => {
  const route = { family: 4, destination: "0.0.0.0", prefixLength: 0, ifindex: 7 } as const;
  assert.deepEqual(typesOf(encodeRoute("add", route), rtmsg), [4]);
  const exclusive = (prepend: boolean) => encodeRoute("add", { ...route, prepend }).flags & NLM_F_EXCL;
  assert.deepEqual([exclusive(true), exclusive(false)], [0, NLM_F_EXCL]);
  const from = { address: "0.0.0.0", prefixLength: 0 };
  assert.deepEqual(typesOf(encodeRule("add", { family: 4, from, table: 5 }), fibRuleHdr), []);
});

test("isDefaultRoute() leaves a cached route out", () => {
  const of = (flags: number) => isDefaultRoute(messageOf(encodeStruct(rtmsg, { family: 2, type: 1, flags })));
  assert.deepEqual([of(0), of(0x200)], [true, false]);
});

test("encodeSetVf() sends a setting that is to be off", () => {
  const lengthOf = (change: Parameters<typeof encodeSetVf>[2]) => encodeSetVf(7, 1, change).body.length;
  assert.ok(lengthOf({ spoofCheck: false }) > lengthOf({}));
  assert.deepEqual(encodeSetVf(7, 1, { spoofCheck: false }).body.length, lengthOf({ trust: false }));
});

test("encodeGetLink() looks a name up as an alternative one where no other can be so long", () => {
  const typeOf = (length: number) => typesOf(encodeGetLink({ name: "x".repeat(length) }), ifinfomsg)[0];
  assert.deepEqual([typeOf(15), typeOf(16)], [3, 53]);
});

test("isNamedOrAbove() keeps a link of one of the names, and one on another of the same namespace", () => {
  const [LINK, LINK_NETNSID] = [5, 37];
  const keeps = (name: string, ...lower: readonly number[]) => {
    const attributes = encodeAttributes((encoder) => {
      encoder.string(3, name);
      for (const type of lower) encoder.u32(type, 7);
    });
    return isNamedOrAbove(
      messageOf(Buffer.concat([encodeStruct(ifinfomsg, { index: 9 }), attributes])),
      new Set(["eth1"]),
    );
  };
  assert.deepEqual(
    [keeps("eth1"), keeps("eth10"), keeps("vlan5", LINK), keeps("veth1", LINK, LINK_NETNSID)],
    [true, false, true, false],
  );
});
