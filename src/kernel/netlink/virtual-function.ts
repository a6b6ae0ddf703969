import type { AttributeDecoder, AttributeEncoder } from "./attribute.ts";
import { decodeStruct, encodeStruct, ifinfomsg, VF_MAC_BYTES, vfRate, vfSetting, vfVlan } from "./layout.ts";
import { IFLA_NUM_VF, IFLA_VFINFO_LIST, linkRequest, macOf, macToBytes } from "./link.ts";
import { decodeBody, type NetlinkMessage, type NetlinkRequest } from "./message.ts";

const IFLA_VF_INFO = 1;
// enum in include/uapi/linux/if_link.h
const IFLA_VF_MAC = 1;
const IFLA_VF_VLAN = 2;
const IFLA_VF_SPOOFCHK = 4;
const IFLA_VF_LINK_STATE = 5;
const IFLA_VF_RATE = 6;
const IFLA_VF_TRUST = 9;

/** A driver that does not know a setting leaves it at -1 (rtnl_fill_vfinfo, net/core/rtnetlink.c). */
const UNKNOWN = 0xffff_ffff;
const LINK_STATES = ["auto", "enable", "disable"] as const;

/** The link that a VF sees: that of the PF, or always up, or always down. */
export type VfLinkState = (typeof LINK_STATES)[number];

/** One VF as its PF reports it. What the driver does not know is undefined. */
export interface VfInfo {
  readonly index: number;
  /** The administrative MAC address; all zero when none is set. */
  readonly mac: string | undefined;
  readonly vlan: number;
  readonly spoofCheck: boolean | undefined;
  readonly trust: boolean | undefined;
  readonly linkState: VfLinkState | undefined;
  /** 0: no limit. */
  readonly minTxRateMbps: number;
  readonly maxTxRateMbps: number;
}

/** What to change of a VF. The kernel does one after the other and stops at the first that fails. */
export interface VfChange {
  readonly mac?: string;
  /** Sent in the older form, which means 802.1Q: some drivers refuse the list. */
  readonly vlan?: number;
  readonly spoofCheck?: boolean;
  readonly trust?: boolean;
  readonly linkState?: VfLinkState;
  readonly rate?: { readonly minMbps: number; readonly maxMbps: number };
}

export function encodeSetVf(pfIndex: number, vf: number, change: VfChange): NetlinkRequest {
  return linkRequest({ index: pfIndex }, (attributes) =>
    attributes.plainNested(IFLA_VFINFO_LIST, (list) =>
      list.plainNested(IFLA_VF_INFO, (info) => addVfChange(info, vf, change)),
    ),
  );
}

function addVfChange(info: AttributeEncoder, vf: number, change: VfChange): void {
  const { mac, vlan, rate } = change;
  const setting = (type: number, value: number) => info.bytes(type, encodeStruct(vfSetting, { vf, setting: value }));
  if (mac !== undefined) {
    const bytes = Buffer.alloc(VF_MAC_BYTES);
    bytes.writeUInt32LE(vf, 0);
    bytes.set(macToBytes(mac), 4);
    info.bytes(IFLA_VF_MAC, bytes);
  }
  if (vlan !== undefined) info.bytes(IFLA_VF_VLAN, encodeStruct(vfVlan, { vf, vlan }));
  if (rate) {
    info.bytes(IFLA_VF_RATE, encodeStruct(vfRate, { vf, min: rate.minMbps, max: rate.maxMbps }));
  }
  if (change.spoofCheck !== undefined) setting(IFLA_VF_SPOOFCHK, change.spoofCheck ? 1 : 0);
  if (change.trust !== undefined) setting(IFLA_VF_TRUST, change.trust ? 1 : 0);
  if (change.linkState !== undefined) setting(IFLA_VF_LINK_STATE, LINK_STATES.indexOf(change.linkState));
}

/** How many VFs a link has, whether its driver reports them or not. @throws {RangeError} when the message is malformed. */
export function decodeVfCount(message: NetlinkMessage): number {
  const { header, attributes } = decodeBody(ifinfomsg, message, "a link");
  const count = attributes.u32(IFLA_NUM_VF) ?? 0;
  if (attributes.problem) throw new RangeError(`VFs of link ${header.index}: ${attributes.problem}`);
  return count;
}

/**
 * The VFs that a link message lists, or only the requested one: a PF may have 256 of them.
 * @throws {RangeError} when the message is malformed.
 */
export function decodeVfInfos(message: NetlinkMessage, only?: number): VfInfo[] {
  const { header, attributes } = decodeBody(ifinfomsg, message, "a link");
  const infos: VfInfo[] = [];
  for (const entry of attributes.nested(IFLA_VFINFO_LIST)?.eachNested(IFLA_VF_INFO) ?? []) {
    const index = entry.bytes(IFLA_VF_MAC)?.readUInt32LE(0);
    if (index === undefined || (only !== undefined && index !== only)) continue;
    infos.push(decodeVfInfo(entry, index));
  }
  if (attributes.problem) throw new RangeError(`VFs of link ${header.index}: ${attributes.problem}`);
  return infos;
}

function decodeVfInfo(entry: AttributeDecoder, index: number): VfInfo {
  const flag = (type: number) => {
    const setting = settingOf(entry, type);
    return setting === undefined ? undefined : setting !== 0;
  };
  const vlanBytes = entry.bytes(IFLA_VF_VLAN);
  const vlan = vlanBytes && decodeStruct(vfVlan, vlanBytes);
  const rateBytes = entry.bytes(IFLA_VF_RATE);
  const rate = rateBytes && decodeStruct(vfRate, rateBytes);
  const state = settingOf(entry, IFLA_VF_LINK_STATE);
  return {
    index,
    mac: macOf(entry.bytes(IFLA_VF_MAC)?.subarray(4, 10)),
    vlan: vlan?.vlan ?? 0,
    spoofCheck: flag(IFLA_VF_SPOOFCHK),
    trust: flag(IFLA_VF_TRUST),
    linkState: state === undefined ? undefined : LINK_STATES[state],
    minTxRateMbps: rate?.min ?? 0,
    maxTxRateMbps: rate?.max ?? 0,
  };
}

function settingOf(entry: AttributeDecoder, type: number): number | undefined {
  const bytes = entry.bytes(type);
  const setting = bytes && decodeStruct(vfSetting, bytes)?.setting;
  return setting === UNKNOWN ? undefined : setting;
}
