// What comes over netlink: from the kernel, but names and attributes in it are those that the maker of a link gave it.
import { decodeAddress, encodeAddress } from "../../../src/kernel/netlink/address.ts";
import { decodeEswitchMode, encodeGetEswitch } from "../../../src/kernel/netlink/devlink.ts";
import { decodeEthtool } from "../../../src/kernel/netlink/ethtool.ts";
import { decodeGeneric } from "../../../src/kernel/netlink/generic.ts";
import {
  decodeLink,
  encodeAltName,
  encodeNewLink,
  encodeSetLink,
  isNamedOrAbove,
} from "../../../src/kernel/netlink/link.ts";
import {
  decodeMessages,
  encodeMessage,
  endOf,
  type NetlinkMessage,
  type NetlinkRequest,
} from "../../../src/kernel/netlink/message.ts";
import { decodeNamespaceId } from "../../../src/kernel/netlink/namespace-id.ts";
import { decodeNeighbour, encodeNeighbour } from "../../../src/kernel/netlink/neighbour.ts";
import { rawAttributes } from "../../../src/kernel/netlink/raw-attributes.ts";
import { decodeDefaultRoute, decodeRoute, encodeRoute } from "../../../src/kernel/netlink/route.ts";
import { decodeRule, encodeRule } from "../../../src/kernel/netlink/rule.ts";
import { decodeVfInfos, encodeSetVf } from "../../../src/kernel/netlink/virtual-function.ts";
import { drain } from "../../../src/kernel/netlink/watch.ts";
import { parseUevent } from "../../../src/kernel/uevents.ts";
import { attributesBehind } from "../form.ts";
import { hold, type Target, texts } from "../target.ts";

const message = (body: Buffer): NetlinkMessage => ({ type: 16, flags: 0, seq: 1, port: 2, body });
const bodies = (...requests: readonly NetlinkRequest[]) => requests.map(({ body }) => body);

/** The decoder of one family; `again` makes of what was decoded the request that would set it. */
function decoder<T extends object>(
  name: string,
  headerBytes: number,
  parts: {
    readonly seeds: readonly Uint8Array[];
    readonly decode: (message: NetlinkMessage) => T | undefined;
    readonly again?: (decoded: T) => NetlinkRequest;
    readonly same?: (decoded: T) => unknown;
  },
): Target {
  const { seeds, decode, again, same } = parts;
  return {
    name: `netlink-${name}`,
    says: `netlink's message of a ${name}`,
    form: attributesBehind(headerBytes),
    seeds,
    refusals: [RangeError],
    run(input) {
      const decoded = decode(message(input));
      if (!decoded) return "another family";
      if (again && same) {
        const twice = decode(message(Buffer.from(again(decoded).body)));
        const [one, other] = [same(decoded), twice && same(twice)].map((value) => JSON.stringify(value));
        hold(one === other, () => `${one} is ${other} when it is written and read`);
      }
      return Object.entries(decoded)
        .map(
          ([key, value]) =>
            `${key}${value === undefined ? "-" : Array.isArray(value) ? Math.min(value.length, 3) : ""}`,
        )
        .join();
    },
  };
}

const address = { ifindex: 3, address: "10.0.0.1", prefixLength: 24, broadcast: "10.0.0.255", protocol: 5 };
const route = {
  family: 4,
  destination: "10.1.0.0",
  prefixLength: 16,
  gateway: "10.0.0.1",
  ifindex: 3,
  table: 1000,
  metric: 5,
} as const;
const rule = {
  family: 4,
  from: { address: "10.2.0.0", prefixLength: 16 },
  ipProtocol: 6,
  sourcePorts: { first: 1, last: 2 },
  destinationPorts: { first: 80, last: 90 },
  table: 1000,
  priority: 7,
} as const;
const vf = {
  mac: "02:00:00:00:00:01",
  vlan: 7,
  spoofCheck: true,
  trust: true,
  linkState: "auto",
  rate: { minMbps: 1, maxMbps: 2 },
} as const;
const mac = "02:00:00:00:00:01";

const linkSeeds = bodies(
  encodeNewLink({ kind: "veth", name: "ve0", address: mac, mtu: 1500, peer: { name: "ve1" } }),
  encodeSetLink(3, { up: true, name: "x", mtu: 9000, address: mac, master: 4 }),
  encodeAltName("add", 3, "longer-name-of-va-0"),
);

export const netlinkTargets: readonly Target[] = [
  decoder("link", 16, { seeds: linkSeeds, decode: decodeLink }),
  decoder("vf", 16, { seeds: bodies(encodeSetVf(3, 1, vf), encodeSetVf(3, 2, { mac })), decode: decodeVfInfos }),
  decoder("address", 8, {
    seeds: bodies(
      encodeAddress("add", address),
      encodeAddress("add", { ...address, address: "2001:db8::1", broadcast: "::" }),
    ),
    decode: decodeAddress,
    again: (decoded) => encodeAddress("add", decoded),
    same: ({ address: text, prefixLength, ifindex, protocol }) => [text, prefixLength, ifindex, protocol],
  }),
  decoder("route", 12, {
    seeds: bodies(
      encodeRoute("add", route),
      encodeRoute("add", { family: 6, destination: "::", prefixLength: 0, onlink: true }),
    ),
    decode(given) {
      decodeDefaultRoute(given);
      return decodeRoute(given);
    },
  }),
  decoder("rule", 12, { seeds: bodies(encodeRule("add", rule)), decode: decodeRule }),
  decoder("neighbour", 12, {
    seeds: bodies(encodeNeighbour("add", { ifindex: 3, address: "10.0.0.9", mac, protocol: 4 })),
    decode: decodeNeighbour,
  }),
  decoder("generic", 4, {
    seeds: bodies(encodeGetEswitch(20, "0000:3b:00.0")),
    decode(given) {
      const mode = decodeEswitchMode(given);
      decodeNamespaceId(given);
      return { mode, id: decodeGeneric(given).u16(1), raw: decodeEthtool(given) };
    },
  }),
  {
    name: "netlink-datagram",
    says: "whole datagrams: messages, ends, notifications",
    seeds: [
      encodeMessage({ type: 16, flags: 0, body: linkSeeds[0] ?? Buffer.alloc(0) }, 1),
      encodeMessage({ type: 20, flags: 0, body: encodeAddress("add", address).body }, 2),
      encodeMessage({ type: 24, flags: 0, body: encodeRoute("add", { ...route, prefixLength: 0 }).body }, 3),
      encodeMessage(
        {
          type: 2,
          flags: 0x200,
          body: Buffer.concat([Buffer.alloc(4), encodeMessage({ type: 16, flags: 0, body: Buffer.alloc(0) }, 1)]),
        },
        4,
      ),
      encodeMessage({ type: 3, flags: 0x202, body: Buffer.from("000000000800010061620000", "hex") }, 5),
    ],
    refusals: [RangeError],
    run(input) {
      let datagrams = [input];
      const events = drain({ receive: () => datagrams.shift() });
      datagrams = [];
      const messages = decodeMessages(input);
      hold(messages.length * 16 <= input.length, () => "more messages than there is room for");
      const ends = messages.map((one) => {
        isNamedOrAbove(one, new Set(["va"]));
        rawAttributes(one.body);
        return endOf(one) !== undefined;
      });
      return `${events.slice(0, 3).map(({ kind }) => kind)} ${ends.slice(0, 4)}`;
    },
  },
  {
    name: "uevent",
    says: "the kernel's news of a device",
    seeds: texts("add@/devices/pci0000:00/0000:00:1c.0\0ACTION=add\0SUBSYSTEM=pci\0SEQNUM=1\0"),
    words: ["\0", "=", "@", "SUBSYSTEM=net", "__proto__=x"],
    refusals: [],
    run(input) {
      const event = parseUevent(input);
      return event ? `${event.action.length > 0} ${event.subsystem.length > 0}` : "none";
    },
  },
];
