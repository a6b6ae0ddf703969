// What the kernel's answers say, at the edges of what fits into a header and of what comes twice, in parts, or cached.
import assert from "node:assert/strict";
import { test } from "node:test";
import { decodeAddress, familyNumber } from "./address.ts";
import { AttributeDecoder, type AttributeEncoder, encodeAttributes } from "./attribute.ts";
import { ifaddrmsg, ifinfomsg, type Layout, ndmsg, rtmsg, type Struct } from "./layout.ts";
import { encodeBody, type NetlinkMessage, type NetlinkRequest } from "./message.ts";
import { decodeNeighbour, encodeNeighbour } from "./neighbour.ts";
import { decodeDefaultRoute, decodeRoute, encodeRoute, type NewRoute } from "./route.ts";
import { decodeRule, encodeRule, type NewRule } from "./rule.ts";
import { decodeVfInfos } from "./virtual-function.ts";

const answered = ({ type, body }: Pick<NetlinkRequest, "type" | "body">): NetlinkMessage => {
  return { type, flags: 0, seq: 1, port: 1, body: Buffer.from(body) };
};

/** A message of the kernel's: its header and attributes. */
function messageOf<L extends Layout>(
  layout: L,
  header: Partial<Struct<L["fields"]>>,
  fill?: (attributes: AttributeEncoder) => void,
): NetlinkMessage {
  return answered({ type: 0, body: encodeBody(layout, header, fill) });
}

const u16s = (...values: readonly number[]) => Buffer.from(Uint16Array.from(values).buffer);
const [RTA_DST, RTA_OIF, RTA_MULTIPATH] = [1, 4, 9];
const [CLONED, UNICAST, UNREACHABLE] = [0x200, 1, 7];
const inet = familyNumber(4);

for (const table of [1, 254, 255, 256, 257, 70_000]) {
  test(`a rule and a route of table ${table} come back as they were sent`, () => {
    const rule: NewRule = {
      family: 4,
      from: { address: "10.0.0.0", prefixLength: 24 },
      ipProtocol: 6,
      sourcePorts: { first: 80, last: 90 },
      destinationPorts: { first: 1, last: 65_534 },
      table,
      priority: 7,
      protocol: 110,
    };
    assert.deepEqual(decodeRule(answered(encodeRule("add", rule))), rule);
    const route: NewRoute = { family: 4, destination: "10.1.0.0", prefixLength: 16, ifindex: 3, table, protocol: 110 };
    const { family, destination, ifindex, table: where } = decodeRoute(answered(encodeRoute("add", route))) ?? {};
    assert.deepEqual({ ...route, family, destination, ifindex, table: where }, route);
  });
}

test("encodeRule() says the lowest priority too, which is not the same as none", () => {
  const of = (priority: number) => encodeRule("delete", { family: 4, table: 1, priority }).body;
  assert.equal(of(0).length, of(1).length);
});

test("encodeRoute() deletes a route by where it leads, whatever else was said of it", () => {
  const route: NewRoute = { family: 4, destination: "10.1.0.0", prefixLength: 16, ifindex: 3, scope: 253 };
  assert.deepEqual(encodeRoute("delete", { ...route, onlink: true }), encodeRoute("delete", { ...route, scope: 0 }));
});

test("cached routes are none, nor are those a default route that lead nowhere", () => {
  const of = (header: Partial<Struct<(typeof rtmsg)["fields"]>>, ...more: readonly number[]) =>
    messageOf(rtmsg, { family: inet, type: UNICAST, table: 254, ...header }, (attributes) => {
      for (const byte of more) attributes.bytes(RTA_DST, Uint8Array.of(10, 0, 0, byte));
      attributes.u32(RTA_OIF, 3);
    });
  assert.equal(decodeRoute(of({ destinationLength: 32, flags: CLONED }, 1)), undefined);
  assert.equal(decodeDefaultRoute(of({ flags: CLONED })), undefined);
  assert.equal(decodeDefaultRoute(of({ type: UNREACHABLE })), undefined);
  assert.equal(decodeDefaultRoute(of({ destinationLength: 32 }, 1)), undefined);
  assert.deepEqual(decodeDefaultRoute(of({}))?.ifindexes, [3]);
});

test("decodeDefaultRoute() finds each next hop behind the attributes of the one before", () => {
  const gateway = encodeAttributes((attributes) => attributes.bytes(5, Uint8Array.of(10, 0, 0, 1)));
  const hop = (index: number) => Buffer.concat([u16s(16, 0), Buffer.from(Int32Array.of(index).buffer), gateway]);
  const message = messageOf(rtmsg, { family: inet, type: UNICAST, table: 254 }, (attributes) =>
    attributes.bytes(RTA_MULTIPATH, Buffer.concat([hop(3), hop(4)])),
  );
  assert.deepEqual(decodeDefaultRoute(message)?.ifindexes, [3, 4]);
});

test("decodeAddress() takes the near end of a point-to-point link, and flags that do not fit into the header", () => {
  const [IFA_ADDRESS, IFA_LOCAL, IFA_FLAGS] = [1, 2, 8];
  const message = messageOf(ifaddrmsg, { family: inet, prefixLength: 32, index: 3, flags: 0x80 }, (attributes) =>
    attributes
      .bytes(IFA_ADDRESS, Uint8Array.of(10, 0, 0, 2))
      .bytes(IFA_LOCAL, Uint8Array.of(10, 0, 0, 1))
      .u32(IFA_FLAGS, 0x240),
  );
  const { address, permanent, tentative } = decodeAddress(message) ?? assert.fail();
  assert.deepEqual([address, permanent, tentative], ["10.0.0.1", false, true]);
});

test("decodeNeighbour() takes for permanent what was set, and refuses what makes no sense", () => {
  const neighbour = { ifindex: 3, address: "10.0.0.2", mac: "02:00:00:00:00:01", protocol: 110 };
  const added = decodeNeighbour(answered(encodeNeighbour("add", neighbour)));
  assert.deepEqual(added, { ...neighbour, family: 4, permanent: true });
  const of = (state: number, protocol: Uint8Array) =>
    messageOf(ndmsg, { family: inet, index: 3, state }, (attributes) =>
      attributes.bytes(1, Uint8Array.of(10, 0, 0, 2)).bytes(12, protocol),
    );
  assert.equal(decodeNeighbour(of(0, Uint8Array.of(0)))?.permanent, false, "it was never heard of");
  assert.throws(() => decodeNeighbour(of(0x80, Uint8Array.of(1, 2))), /a neighbour: attribute 12 is 2 bytes long/);
});

test("decodeVfInfos() answers for the first VF alone, whose number is 0", () => {
  const vfOf = (index: number) => Buffer.concat([u16s(index, 0), Buffer.alloc(32)]);
  const message = messageOf(ifinfomsg, { index: 2 }, (attributes) =>
    attributes.nested(22, (list) => {
      for (const index of [0, 1]) list.nested(1, (info) => info.bytes(1, vfOf(index)));
    }),
  );
  const indexes = (only?: number) => decodeVfInfos(message, only).map(({ index }) => index);
  assert.deepEqual([indexes(0), indexes(1), indexes()], [[0], [1], [0, 1]]);
});

test("AttributeDecoder takes the last of two, and a text without its final NUL whole", () => {
  const decoder = new AttributeDecoder(
    encodeAttributes((attributes) => attributes.u8(1, 1).u8(1, 2).bytes(3, Buffer.from("eth0"))),
  );
  assert.deepEqual([decoder.u8(1), decoder.string(3)], [2, "eth0"]);
});
