import assert from "node:assert/strict";
import { test } from "node:test";
import { encodeAttributes } from "./attribute.ts";
import { decodeLink, RTM_NEWLINK } from "./link.ts";

// What Linux 6.18 answers for a virtio NIC, captured with
//   strace -e trace=recvmsg -e read=3 ip link show dev eth0
// Counters (IFLA_STATS, IFLA_STATS64), IFLA_AF_SPEC, IFLA_MAP and settings that are not read are left out of the copy.
const ETH0 = [
  "00000100 04000000 43100100 00000000",
  "09000300 65746830 00000000",
  "08000400 78050000 08003200 44000000 08003300 ffff0000",
  "0a000100 02fc0000 00010000 0a003600 02fc0000 00010000",
  "0c003800 76697274 696f3200 0b003900 76697274 696f0000",
].join(" ");

const messageOf = (body: Buffer) => ({ type: RTM_NEWLINK, flags: 0, seq: 1, port: 1, body });
const eth0 = Buffer.from(ETH0.replaceAll(" ", ""), "hex");

test("decodeLink() reads what a link sits on from the message of the link", () => {
  const { index, name, address, up, parentDevice, parentBus, portName } = decodeLink(messageOf(eth0));
  assert.deepEqual([index, name, address, up], [4, "eth0", "02:fc:00:00:00:01", true]);
  assert.deepEqual([parentDevice, parentBus, portName], ["virtio2", "virtio", undefined]);
});

test("decodeLink() reads the name of the port, and the namespace of a veth's other end", () => {
  // IFLA_PHYS_PORT_NAME and IFLA_LINK_NETNSID, include/uapi/linux/if_link.h.
  const more = encodeAttributes((encoder) => encoder.string(38, "pf0vf3").u32(37, 7));
  const link = decodeLink(messageOf(Buffer.concat([eth0, more])));
  assert.deepEqual([link.portName, link.peerNetnsId], ["pf0vf3", 7]);
});
