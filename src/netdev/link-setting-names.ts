// What is compared of a link that has been with a client: everything that the kernel says of it, but for what is listed here with
// the reason. What no list has, because the kernel is newer, is compared too.

/** IFF_*, include/uapi/linux/if.h; by bit. */
export const FLAG_NAMES = [
  "up",
  "broadcast",
  "debug",
  "loopback",
  "pointopoint",
  "notrailers",
  "running",
  "noarp",
  "promisc",
  "allmulti",
  "master",
  "slave",
  "multicast",
  "portsel",
  "automedia",
  "dynamic",
  "lower-up",
  "dormant",
  "echo",
] as const;

type FlagName = (typeof FLAG_NAMES)[number];

/** Those that `ip link` can set (__dev_change_flags, net/core/dev.c). */
const SETTABLE_FLAGS: readonly FlagName[] = [
  "debug",
  "notrailers",
  "noarp",
  "promisc",
  "allmulti",
  "multicast",
  "portsel",
  "automedia",
  "dynamic",
];
/** Restored beside the name, or the state of the carrier. */
const IGNORED_FLAGS: readonly FlagName[] = ["up", "running", "lower-up", "dormant"];

export function isSettableFlag(bit: number): boolean {
  return SETTABLE_FLAGS.some((name) => name === FLAG_NAMES[bit]);
}

/** One that has no name here is compared. */
export function isComparedFlag(bit: number): boolean {
  return !IGNORED_FLAGS.some((name) => name === FLAG_NAMES[bit]);
}

/** IFLA_*, include/uapi/linux/if_link.h (Linux 6.18), as iproute2 calls them. */
export const LinkAttribute = {
  BROADCAST: 2,
  TXQLEN: 13,
  LINKMODE: 17,
  IFALIAS: 20,
  GROUP: 27,
  PROMISCUITY: 30,
  PROTO_DOWN: 39,
  GSO_MAX_SEGS: 40,
  GSO_MAX_SIZE: 41,
  XDP: 43,
  PROP_LIST: 52,
  GRO_MAX_SIZE: 58,
  ALLMULTI: 61,
  GSO_IPV4_MAX_SIZE: 63,
  GRO_IPV4_MAX_SIZE: 64,
} as const;

/** The names of attributes that are compared; any other is called by its number. */
export const LINK_ATTRIBUTE_NAMES: Readonly<Record<number, string>> = {
  [LinkAttribute.BROADCAST]: "broadcast address",
  10: "master",
  11: "wireless",
  12: "bridge port",
  [LinkAttribute.TXQLEN]: "txqueuelen",
  [LinkAttribute.LINKMODE]: "mode",
  18: "kind",
  [LinkAttribute.IFALIAS]: "alias",
  [LinkAttribute.GROUP]: "group",
  31: "numtxqueues",
  32: "numrxqueues",
  34: "phys_port_id",
  36: "phys_switch_id",
  38: "phys_port_name",
  [LinkAttribute.PROTO_DOWN]: "protodown",
  [LinkAttribute.GSO_MAX_SEGS]: "gso_max_segs",
  [LinkAttribute.GSO_MAX_SIZE]: "gso_max_size",
  50: "minmtu",
  51: "maxmtu",
  55: "protodown_reason",
  56: "parentdev",
  57: "parentbus",
  [LinkAttribute.GRO_MAX_SIZE]: "gro_max_size",
  59: "tso_max_size",
  60: "tso_max_segs",
  62: "devlink port",
  [LinkAttribute.GSO_IPV4_MAX_SIZE]: "gso_ipv4_max_size",
  [LinkAttribute.GRO_IPV4_MAX_SIZE]: "gro_ipv4_max_size",
  65: "dpll pin",
  66: "max_pacing_offload_horizon",
  67: "netns-immutable",
};

const ELSEWHERE = "restored beside the settings (restore-to-host.ts)";
const OF_A_PF = "of a PF: its VFs are compared by the settings that were changed";
const COUNTER = "a counter";
const CARRIER = "follows the carrier";
const REQUEST = "only ever in a request or a notification";

/** Attributes that are not compared, each with the reason. */
export const IGNORED_LINK_ATTRIBUTES: Readonly<Record<number, string>> = {
  1: ELSEWHERE, // ADDRESS
  3: ELSEWHERE, // IFNAME
  4: ELSEWHERE, // MTU
  5: "the other end of a pair, by an index of its namespace", // LINK
  6: "follows from up; a move takes queueing disciplines and filters off (dev_shutdown)", // QDISC
  7: COUNTER, // STATS
  14: "where the device's memory and interrupt lie", // MAP
  16: CARRIER, // OPERSTATE
  21: OF_A_PF, // NUM_VF
  22: OF_A_PF, // VFINFO_LIST
  23: COUNTER, // STATS64
  24: OF_A_PF, // VF_PORTS
  25: OF_A_PF, // PORT_SELF
  26: "of IPv4 and IPv6 in this namespace: a move makes both again with the namespace's defaults", // AF_SPEC
  [LinkAttribute.PROMISCUITY]: "compared without the link's own flag, as promiscuous users",
  33: CARRIER, // CARRIER
  35: COUNTER, // CARRIER_CHANGES
  37: "where the other end of a pair is", // LINK_NETNSID
  42: "padding", // PAD
  [LinkAttribute.XDP]: "compared as xdp, by program",
  44: REQUEST, // EVENT
  45: REQUEST, // NEW_NETNSID
  46: "which namespace was queried", // IF_NETNSID
  47: COUNTER, // CARRIER_UP_COUNT
  48: COUNTER, // CARRIER_DOWN_COUNT
  49: REQUEST, // NEW_IFINDEX
  [LinkAttribute.PROP_LIST]: "compared altname by altname",
  54: "follows the address that the PF gives the VF", // PERM_ADDRESS
  [LinkAttribute.ALLMULTI]: "compared without the link's own flag, as allmulti users",
  68: "what lies on the link, or at its other end, needs it", // HEADROOM
  69: "what lies on the link, or at its other end, needs it", // TAILROOM
};
