// Which answers of ethtool are compared, and what of them can be set.

/** One kind of settings: a query, its answer's attributes, and the change that takes them. */
export interface EthtoolKind {
  readonly name: string;
  /** ETHTOOL_MSG_*_GET, include/uapi/linux/ethtool_netlink.h (Linux 6.18). */
  readonly get: number;
  /** ETHTOOL_MSG_*_SET, where it is restored. */
  readonly set?: number;
  /** Attributes by their names in ethtool(8); any other is called by its number. */
  readonly names: Readonly<Record<number, string>>;
  readonly settable?: readonly number[];
  /** Bit sets, of which only the bits that differ are set. */
  readonly bitsets?: readonly number[];
  /** Where netlink cannot say it (before Linux 6.2), an ioctl has been tried. */
  readonly byIoctl?: boolean;
  /** Not compared, each with the reason. */
  readonly ignored?: Readonly<Record<number, string>>;
}

const FEATURES_WANTED = 3;
const range = (first: number, last: number) => Array.from({ length: last - first + 1 }, (_, at) => first + at);
const LINK_STATE = "follows the state of the link";
const COUNTERS = "counters";

/**
 * In the order in which they are restored: queues before what is set for each of them. Speed and duplex (LINKMODES, LINKINFO) are the
 * port's, which is the PF's, and what a VF says of them follows its carrier.
 */
export const ETHTOOL_KINDS: readonly EthtoolKind[] = [
  { name: "privflags", get: 13, set: 14, names: { 2: "flags" }, settable: [2], bitsets: [2] },
  {
    name: "channels",
    get: 17,
    set: 18,
    names: {
      2: "max rx",
      3: "max tx",
      4: "max other",
      5: "max combined",
      6: "rx",
      7: "tx",
      8: "other",
      9: "combined",
    },
    settable: range(6, 9),
  },
  {
    name: "rings",
    get: 15,
    set: 16,
    names: {
      2: "max rx",
      3: "max rx-mini",
      4: "max rx-jumbo",
      5: "max tx",
      6: "rx",
      7: "rx-mini",
      8: "rx-jumbo",
      9: "tx",
      10: "rx-buf-len",
      11: "tcp-data-split",
      12: "cqe-size",
      13: "tx-push",
      14: "rx-push",
      15: "tx-push-buf-len",
      16: "max tx-push-buf-len",
      17: "hds-thresh",
      18: "max hds-thresh",
    },
    settable: [...range(6, 15), 17],
  },
  {
    name: "coalesce",
    get: 19,
    set: 20,
    names: {
      2: "rx-usecs",
      3: "rx-frames",
      4: "rx-usecs-irq",
      5: "rx-frames-irq",
      6: "tx-usecs",
      7: "tx-frames",
      8: "tx-usecs-irq",
      9: "tx-frames-irq",
      10: "stats-block-usecs",
      11: "adaptive-rx",
      12: "adaptive-tx",
      24: "cqe-mode-tx",
      25: "cqe-mode-rx",
      26: "tx-aggr-max-bytes",
      27: "tx-aggr-max-frames",
      28: "tx-aggr-time-usecs",
    },
    settable: range(2, 28),
  },
  {
    name: "features",
    get: 11,
    set: 12,
    names: { 2: "changeable", [FEATURES_WANTED]: "requested", 4: "active", 5: "fixed" },
    settable: [FEATURES_WANTED],
    bitsets: [FEATURES_WANTED],
  },
  {
    name: "pause",
    get: 21,
    set: 22,
    names: { 2: "autoneg", 3: "rx", 4: "tx" },
    settable: range(2, 4),
    ignored: { 5: COUNTERS },
  },
  { name: "debug", get: 7, set: 8, names: { 2: "msglvl" }, settable: [2], bitsets: [2] },
  {
    name: "eee",
    get: 23,
    set: 24,
    names: { 2: "advertise", 5: "eee", 6: "tx-lpi", 7: "tx-timer" },
    settable: range(5, 7),
    ignored: { 3: LINK_STATE, 4: LINK_STATE },
  },
  { name: "fec", get: 29, names: { 2: "encoding", 3: "auto" }, ignored: { 4: LINK_STATE, 5: COUNTERS } },
  { name: "wol", get: 9, names: { 2: "wol" }, ignored: { 3: "a password (SecureOn)" } },
  { name: "rss", get: 38, byIoctl: true, names: { 3: "hfunc", 4: "table", 5: "hkey", 6: "xfrm", 8: "flow hash" } },
];
