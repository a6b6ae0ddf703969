import assert from "node:assert/strict";
import { test } from "node:test";
import { NetdevError } from "./error.ts";
import {
  parseHostPrefix,
  parseInterfaceName,
  parseMac,
  parseMtu,
  parseNextHop,
  parsePorts,
  parseProtocol,
  parseRoutePrefix,
  parseVlan,
} from "./parse.ts";
import { prefixText } from "./prefix.ts";

const route = { family: 4, address: "10.0.0.0", prefixLength: 8 } as const;
const refused: readonly (readonly [name: string, parse: () => unknown, says: RegExp])[] = [
  ["an empty name", () => parseInterfaceName(""), /Cannot take "" as interface name: it is empty/],
  ["16 bytes", () => parseInterfaceName("abcdefghijklmnop"), /it has 16 bytes, at most 15 are taken/],
  ["8 characters of 16 bytes", () => parseInterfaceName("éééééééé"), /it has 16 bytes/],
  ["the name .", () => parseInterfaceName("."), /the kernel keeps that name/],
  ["the name ..", () => parseInterfaceName(".."), /the kernel keeps that name/],
  ["the name all", () => parseInterfaceName("all"), /the kernel keeps that name/],
  ["a slash", () => parseInterfaceName("a/b"), /it may not have "\/"/],
  ["a colon", () => parseInterfaceName("eth0:1"), /it may not have ":"/],
  ["a template", () => parseInterfaceName("eth%d"), /it may not have "%"/],
  ["a blank", () => parseInterfaceName("a b"), /it may not have blanks and control characters/],
  ["a newline", () => parseInterfaceName("a\nb"), /Cannot take "a\?b" as interface name: it may not have blanks/],
  ["a NUL", () => parseInterfaceName("a\0b"), /control characters/],
  ["MTU 0", () => parseMtu(0), /Cannot take "0" as MTU: want a whole number from 68 to 65535/],
  ["MTU 2^31", () => parseMtu(2 ** 31), /Cannot take "2147483648" as MTU/],
  ["MTU 1500.5", () => parseMtu(1500.5), /as MTU/],
  ["VLAN 4095", () => parseVlan(4095), /from 0 \(none\) to 4094/],
  ["VLAN -1", () => parseVlan(-1), /as VLAN/],
  ["a short MAC", () => parseMac("MAC address", "02:00:00:00:00"), /want six bytes/],
  ["a MAC of two spellings", () => parseMac("neighbour", "02:00:00-00:00:01"), /want six bytes/],
  ["a zero MAC", () => parseMac("MAC address", "00:00:00:00:00:00"), /it is all zero/],
  ["a multicast MAC", () => parseMac("neighbour", "01:00:5e:00:00:01"), /it is a multicast address/],
  ["no address", () => parseHostPrefix("address", "kitten"), /as address: want an IP address/],
  ["a long prefix", () => parseHostPrefix("address", "10.0.0.1/33"), /as address: want an IP address/],
  ["an empty prefix", () => parseHostPrefix("address", "10.0.0.1/"), /as address/],
  ["two prefixes", () => parseHostPrefix("address", "10.0.0.1/24/24"), /as address/],
  ["a zone", () => parseHostPrefix("address", "fe80::1%eth0/64"), /as address/],
  ["0.0.0.0", () => parseHostPrefix("address", "0.0.0.0/0"), /unspecified/],
  ["multicast", () => parseHostPrefix("peer address", "224.0.0.1/32"), /multicast or reserved/],
  ["IPv6 multicast", () => parseHostPrefix("address", "ff02::1/128"), /multicast/],
  ["loopback", () => parseHostPrefix("address", "127.0.0.1/8"), /loopback/],
  ["IPv6 loopback", () => parseHostPrefix("address", "::1/128"), /loopback/],
  ["a mapped address", () => parseHostPrefix("address", "::ffff:10.0.0.1/128"), /in IPv6 clothing/],
  ["a route that is none", () => parseRoutePrefix("10.0.0.0/x"), /as route: want a network/],
  ["a next hop with a length", () => parseNextHop("10.0.0.1/24", route), /without a length/],
  ["a next hop of the other family", () => parseNextHop("2001:db8::1", route), /its route 10.0.0.0 is IPv4/],
  ["a multicast next hop", () => parseNextHop("224.0.0.1", route), /multicast/],
  ["port 0", () => parsePorts("0"), /as port range: want "80" or "80-90"/],
  ["port 65535", () => parsePorts("65535"), /from 1 to 65534/],
  ["ports backwards", () => parsePorts("90-80"), /as port range/],
  ["ports 1-2-3", () => parsePorts("1-2-3"), /as port range/],
  ["protocol 0", () => parseProtocol("0"), /want a number from 1 to 255 or one of icmp/],
  ["protocol 256", () => parseProtocol("256"), /as protocol/],
  ["protocol kitten", () => parseProtocol("kitten"), /as protocol/],
  ["protocol constructor", () => parseProtocol("constructor"), /as protocol/],
];
for (const [name, parse, says] of refused) {
  test(`the parsers refuse ${name}`, () => {
    assert.throws(parse, (error) => {
      assert.ok(error instanceof NetdevError);
      assert.equal(error.fault.kind, "invalid");
      assert.match(error.message, says);
      return true;
    });
  });
}

test("the parsers take what the kernel takes, and make it canonical", () => {
  assert.equal(parseInterfaceName("abcdefghijklmno"), "abcdefghijklmno");
  assert.equal(parseInterfaceName("nsm-1.100@x"), "nsm-1.100@x");
  assert.equal(parseMac("MAC address", "0A-00-00-00-00-01"), "0a:00:00:00:00:01");
  assert.equal(prefixText(parseHostPrefix("address", "2001:DB8:0::1/64")), "2001:db8::1/64");
  assert.equal(prefixText(parseHostPrefix("address", "10.0.0.1")), "10.0.0.1/32");
  assert.equal(prefixText(parseRoutePrefix("10.1.2.3/9")), "10.0.0.0/9");
  assert.equal(prefixText(parseRoutePrefix("2001:db8:ffff::1/33")), "2001:db8:8000::/33");
  assert.deepEqual(parsePorts("80"), { first: 80, last: 80 });
  assert.deepEqual(parsePorts("80-90"), { first: 80, last: 90 });
  assert.deepEqual([parseProtocol("TCP"), parseProtocol("47"), parseVlan(0), parseMtu(68)], [6, 47, 0, 68]);
});

test("NetdevError cuts a long text and hides control characters", () => {
  assert.throws(
    () => parseMac("MAC address", `\u001b[31m${"x".repeat(500)}`),
    (error: Error) => {
      assert.ok(error.message.length < 200);
      assert.equal(error.message.includes("\u001b"), false);
      return true;
    },
  );
});
