import type { AttributeDecoder, AttributeEncoder } from "./attribute.ts";
import {
  decodeStruct,
  encodeStruct,
  VF_MAC_BYTES,
  VF_RATE_BYTES,
  VF_SETTING_BYTES,
  VF_VLAN_BYTES,
  VF_VLAN_INFO_BYTES,
  vfRate,
  vfSetting,
  vfVlan,
  vfVlanInfo,
} from "./layout.ts";
import { decodeLinkAttributes, IFLA_NUM_VF, IFLA_VFINFO_LIST, linkRequest, macOf, macToBytes } from "./link.ts";
import type { NetlinkMessage, NetlinkRequest } from "./message.ts";

const IFLA_VF_INFO = 1;
// enum in include/uapi/linux/if_link.h
const IFLA_VF_MAC = 1;
const IFLA_VF_VLAN = 2;
const IFLA_VF_SPOOFCHK = 4;
const IFLA_VF_LINK_STATE = 5;
const IFLA_VF_RATE = 6;
const IFLA_VF_TRUST = 9;
const IFLA_VF_VLAN_LIST = 12;
const IFLA_VF_VLAN_INFO = 1;

/** A driver that does not know a setting leaves it at -1 (rtnl_fill_vfinfo, net/core/rtnetlink.c). */
const UNKNOWN = 0xffff_ffff;
const LINK_STATES = ["auto", "enable", "disable"] as const;
const ETH_P_8021Q = 0x8100;
const ETH_P_8021AD = 0x88a8;

/** The link that a VF sees: that of the PF, or always up, or always down. */
export type VfLinkState = (typeof LINK_STATES)[number];

/** One VF as its PF tells it. What the driver does not know is undefined. */
export interface VfInfo {
  readonly index: number;
  /** The administrative MAC address; all zero when none is set. */
  readonly mac: string | undefined;
  readonly vlan: number;
  readonly qos: number;
  readonly vlanProtocol: "802.1Q" | "802.1ad";
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
  /** With a protocol the newer list form is sent, which some drivers refuse; without it means 802.1Q. */
  readonly vlan?: { readonly id: number; readonly qos?: number; readonly protocol?: VfInfo["vlanProtocol"] };
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
  const setting = (type: number, value: number) =>
    info.bytes(type, encodeStruct(vfSetting, VF_SETTING_BYTES, { vf, setting: value }));
  if (mac !== undefined) {
    const bytes = Buffer.alloc(VF_MAC_BYTES);
    bytes.writeUInt32LE(vf, 0);
    bytes.set(macToBytes(mac), 4);
    info.bytes(IFLA_VF_MAC, bytes);
  }
  if (vlan) addVlan(info, vf, vlan);
  if (rate) {
    info.bytes(IFLA_VF_RATE, encodeStruct(vfRate, VF_RATE_BYTES, { vf, min: rate.minMbps, max: rate.maxMbps }));
  }
  if (change.spoofCheck !== undefined) setting(IFLA_VF_SPOOFCHK, change.spoofCheck ? 1 : 0);
  if (change.trust !== undefined) setting(IFLA_VF_TRUST, change.trust ? 1 : 0);
  if (change.linkState !== undefined) setting(IFLA_VF_LINK_STATE, LINK_STATES.indexOf(change.linkState));
}

function addVlan(info: AttributeEncoder, vf: number, vlan: NonNullable<VfChange["vlan"]>): void {
  const { id, qos = 0, protocol } = vlan;
  if (!protocol) {
    info.bytes(IFLA_VF_VLAN, encodeStruct(vfVlan, VF_VLAN_BYTES, { vf, vlan: id, qos }));
    return;
  }
  const ethertype = protocol === "802.1ad" ? ETH_P_8021AD : ETH_P_8021Q;
  info.plainNested(IFLA_VF_VLAN_LIST, (list) =>
    list.bytes(
      IFLA_VF_VLAN_INFO,
      encodeStruct(vfVlanInfo, VF_VLAN_INFO_BYTES, { vf, vlan: id, qos, protocol: ethertype }),
    ),
  );
}

/** How many VFs a link has, whether its driver tells of them or not. @throws {RangeError} when the message is malformed. */
export function decodeVfCount(message: NetlinkMessage): number {
  const { header, attributes } = decodeLinkAttributes(message);
  const count = attributes.u32(IFLA_NUM_VF) ?? 0;
  if (attributes.problem) throw new RangeError(`VFs of link ${header.index}: ${attributes.problem}`);
  return count;
}

/**
 * The VFs that a link message lists, or only the one asked for: a PF may have 256 of them.
 * @throws {RangeError} when the message is malformed.
 */
export function decodeVfInfos(message: NetlinkMessage, only?: number): VfInfo[] {
  const { header, attributes } = decodeLinkAttributes(message);
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
  const vlanInfoBytes = entry.nested(IFLA_VF_VLAN_LIST)?.bytes(IFLA_VF_VLAN_INFO);
  const vlanInfo = vlanInfoBytes && decodeStruct(vfVlanInfo, vlanInfoBytes);
  const rateBytes = entry.bytes(IFLA_VF_RATE);
  const rate = rateBytes && decodeStruct(vfRate, rateBytes);
  const state = settingOf(entry, IFLA_VF_LINK_STATE);
  return {
    index,
    mac: macOf(entry.bytes(IFLA_VF_MAC)?.subarray(4, 10)),
    vlan: vlan?.vlan ?? 0,
    qos: vlan?.qos ?? 0,
    vlanProtocol: vlanInfo?.protocol === ETH_P_8021AD ? "802.1ad" : "802.1Q",
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
