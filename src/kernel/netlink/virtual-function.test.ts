import assert from "node:assert/strict";
import { test } from "node:test";
import { encodeAttributes } from "./attribute.ts";
import { encodeStruct, ifinfomsg, vfSetting } from "./layout.ts";
import { IFLA_VFINFO_LIST, RTM_NEWLINK } from "./link.ts";
import type { NetlinkMessage } from "./message.ts";
import { decodeVfInfos } from "./virtual-function.ts";

// As rtnl_fill_vfinfo (net/core/rtnetlink.c, Linux 6.1) lays it out, u32 by u32: IFLA_VF_INFO{ MAC 36, BROADCAST 32,
// VLAN 12, TX_RATE 8, RATE 12, SPOOFCHK 8, LINK_STATE 8, RSS_QUERY_EN 8, TRUST 8, VLAN_LIST{ VLAN_INFO 16 } }.
const VF_2 = [
  "a8000180 28000100 02000000 02000000 00050000 00000000 00000000 00000000 00000000 00000000 00000000",
  "24000d00 ffffffff ffff0000 00000000 00000000 00000000 00000000 00000000 00000000",
  "10000200 02000000 64000000 03000000",
  "0c000300 02000000 c8000000 10000600 02000000 0a000000 c8000000",
  "0c000400 02000000 01000000 0c000500 02000000 02000000 0c000700 02000000 00000000",
  "0c000900 02000000 ffffffff",
  "18000c80 14000100 02000000 64000000 03000000 88a80000",
].join(" ");

function linkWith(list: Buffer): NetlinkMessage {
  const header = encodeStruct(ifinfomsg, { index: 4 });
  const body = Buffer.concat([header, encodeAttributes((encoder) => encoder.bytes(IFLA_VFINFO_LIST, list))]);
  return { type: RTM_NEWLINK, flags: 0, seq: 1, port: 1, body };
}

function vf2(): Buffer {
  const bytes = Buffer.from(VF_2.replaceAll(" ", ""), "hex");
  bytes.writeUInt16LE(bytes.length, 0);
  return bytes;
}

test("decodeVfInfos() reads what a PF reports of a VF; a setting of -1 is one that the driver does not know", () => {
  assert.deepEqual(decodeVfInfos(linkWith(vf2())), [
    {
      index: 2,
      mac: "02:00:00:00:00:05",
      vlan: 100,
      spoofCheck: true,
      trust: undefined,
      linkState: "disable",
      minTxRateMbps: 10,
      maxTxRateMbps: 200,
    },
  ]);
});

test("decodeVfInfos() gives only the requested VF, and none for a link without VFs", () => {
  assert.deepEqual(decodeVfInfos(linkWith(vf2()), 3), []);
  assert.equal(decodeVfInfos(linkWith(Buffer.concat([vf2(), vf2()])), 2).length, 2);
  assert.deepEqual(decodeVfInfos(linkWith(Buffer.alloc(0))), []);
});

test("decodeVfInfos() refuses a list that is cut short and skips an entry without a number", () => {
  assert.throws(() => decodeVfInfos(linkWith(vf2().subarray(0, 60))), /VFs of link 4: an attribute at byte 0/);
  const setting = encodeStruct(vfSetting, { vf: 1, setting: 1 });
  const list = encodeAttributes((encoder) => encoder.nested(1, (info) => info.bytes(4, setting)));
  assert.deepEqual(decodeVfInfos(linkWith(list)), []);
});
