type FieldType = "u8" | "u16" | "u32" | "s32";

type Fields = Readonly<Record<string, readonly [offset: number, type: FieldType]>>;

/** A C structure: its size with all padding, and where its fields lie. All numbers are in the byte order of the machine (little endian). */
export interface Layout<F extends Fields = Fields> {
  readonly size: number;
  readonly fields: F;
  /** The same once more, as decoding goes through them: a dump has a million structures. */
  readonly list: readonly Field[];
  /** Where the last of them ends. */
  readonly end: number;
}

interface Field {
  readonly name: string;
  readonly offset: number;
  readonly type: FieldType;
}

/** The values of a structure; what is left out when encoding is zero. */
export type Struct<F extends Fields> = { readonly [K in keyof F]: number };

const BYTES: Readonly<Record<FieldType, number>> = { u8: 1, u16: 2, u32: 4, s32: 4 };

export function encodeStruct<F extends Fields>({ size, fields }: Layout<F>, values: Partial<Struct<F>>): Buffer {
  const bytes = Buffer.alloc(size);
  for (const name of Object.keys(values)) {
    const field = fields[name];
    const value = values[name];
    if (field && value !== undefined) write(bytes, field[0], field[1], value);
  }
  return bytes;
}

/** Decodes a structure that starts at `at`; a structure that is cut short reads as undefined. */
export function decodeStruct<F extends Fields>({ list, end }: Layout<F>, bytes: Buffer, at = 0): Struct<F> | undefined {
  if (at + end > bytes.length) return undefined;
  const values: Record<string, number> = {};
  for (const { name, offset, type } of list) values[name] = read(bytes, at + offset, type);
  return values as Struct<F>;
}

/** Types the table of a structure by its own fields. */
function layout<const F extends Fields>(size: number, fields: F): Layout<F> {
  const list = Object.entries(fields).map(([name, [offset, type]]) => ({ name, offset, type }));
  const end = Math.max(...list.map(({ offset, type }) => offset + BYTES[type]));
  return { size, fields, list, end };
}

function write(bytes: Buffer, at: number, type: FieldType, value: number): void {
  if (type === "u8") bytes.writeUInt8(value, at);
  else if (type === "u16") bytes.writeUInt16LE(value, at);
  else if (type === "u32") bytes.writeUInt32LE(value, at);
  else bytes.writeInt32LE(value, at);
}

function read(bytes: Buffer, at: number, type: FieldType): number {
  if (type === "u8") return bytes.readUInt8(at);
  if (type === "u16") return bytes.readUInt16LE(at);
  return type === "u32" ? bytes.readUInt32LE(at) : bytes.readInt32LE(at);
}

// struct nlmsghdr, include/uapi/linux/netlink.h (Linux 6.1). 16 bytes.
export const nlmsghdr = layout(16, {
  len: [0, "u32"], // with this header, without the padding behind it
  type: [4, "u16"],
  flags: [6, "u16"],
  seq: [8, "u32"],
  pid: [12, "u32"], // port of the socket that is answered
});

// struct genlmsghdr, include/uapi/linux/genetlink.h (Linux 6.1). 4 bytes, the last two reserved.
export const genlmsghdr = layout(4, { command: [0, "u8"], version: [1, "u8"] });

// struct ifinfomsg, include/uapi/linux/rtnetlink.h (Linux 6.1). 16 bytes, no tail padding.
export const ifinfomsg = layout(16, {
  family: [0, "u8"], // byte 1 is __ifi_pad
  type: [2, "u16"], // ARPHRD_*
  index: [4, "s32"],
  flags: [8, "u32"], // IFF_*
  change: [12, "u32"], // mask of the flags to change
});

// struct ifaddrmsg, include/uapi/linux/if_addr.h (Linux 6.1). 8 bytes.
export const ifaddrmsg = layout(8, {
  family: [0, "u8"],
  prefixLength: [1, "u8"],
  flags: [2, "u8"], // the low byte of IFA_FLAGS
  scope: [3, "u8"],
  index: [4, "u32"],
});

// struct rtmsg, include/uapi/linux/rtnetlink.h (Linux 6.1). 12 bytes.
export const rtmsg = layout(12, {
  family: [0, "u8"],
  destinationLength: [1, "u8"],
  sourceLength: [2, "u8"],
  tos: [3, "u8"],
  table: [4, "u8"], // RT_TABLE_COMPAT or 0 when the id needs RTA_TABLE
  protocol: [5, "u8"],
  scope: [6, "u8"],
  type: [7, "u8"], // RTN_*
  flags: [8, "u32"], // RTNH_F_*, RTM_F_*
});

// struct fib_rule_hdr, include/uapi/linux/fib_rules.h (Linux 6.1). 12 bytes; bytes 5 and 6 are reserved.
export const fibRuleHdr = layout(12, {
  family: [0, "u8"],
  destinationLength: [1, "u8"],
  sourceLength: [2, "u8"],
  tos: [3, "u8"],
  table: [4, "u8"],
  action: [7, "u8"], // FR_ACT_*
  flags: [8, "u32"],
});

// struct ndmsg, include/uapi/linux/neighbour.h (Linux 6.1). 12 bytes; bytes 1..3 are padding.
export const ndmsg = layout(12, {
  family: [0, "u8"],
  index: [4, "s32"],
  state: [8, "u16"], // NUD_*
  flags: [10, "u8"], // NTF_*
  type: [11, "u8"],
});

// The IFLA_VF_* structures, include/uapi/linux/if_link.h (Linux 6.1).
// struct ifla_vf_mac: u32 vf, u8 mac[32]; 36 bytes, an Ethernet address takes the first six.
export const VF_MAC_BYTES = 36;
// struct ifla_vf_vlan. 12 bytes.
export const vfVlan = layout(12, { vf: [0, "u32"], vlan: [4, "u32"], qos: [8, "u32"] });
// struct ifla_vf_rate. 12 bytes, Mbps.
export const vfRate = layout(12, { vf: [0, "u32"], min: [4, "u32"], max: [8, "u32"] });
// struct ifla_vf_spoofchk, ifla_vf_link_state, ifla_vf_trust: all are u32 vf, u32 setting. 8 bytes.
export const vfSetting = layout(8, { vf: [0, "u32"], setting: [4, "u32"] });
