import assert from "node:assert/strict";
import { test } from "node:test";
import { encodeAttributes } from "./attribute.ts";
import type { NetlinkSocket } from "./conversation.ts";
import { Devlink, decodeEswitchMode, encodeGetEswitch } from "./devlink.ts";
import { encodeGetFamily } from "./generic.ts";
import { encodeStruct, nlmsghdr } from "./layout.ts";
import { decodeMessages, encodeMessage, NLM_F_ACK } from "./message.ts";

const PF = "0000:3b:00.0";
const FAMILY = 0x1e;
const PORT = 77;

// What `devlink dev eswitch show pci/0000:3b:00.0` of iproute2 6.1.0 sends. The kernel at hand has no devlink: a preloaded library
// played it, so number and version of the family are 0 in what was captured; version 1 is include/uapi/linux/devlink.h's
// DEVLINK_GENL_VERSION.
test("devlink's requests are those of iproute2, byte by byte", () => {
  const hexOf = (request: Parameters<typeof encodeMessage>[0]) => {
    const bytes = encodeMessage({ ...request, flags: NLM_F_ACK }, 0x6b0c3df9);
    return bytes.toString("hex").match(/.{8}/g)?.join(" ");
  };
  assert.equal(
    hexOf(encodeGetFamily("devlink")),
    "20000000 10000500 f93d0c6b 00000000 03010000 0c000200 6465766c 696e6b00",
  );
  assert.equal(
    hexOf(encodeGetEswitch(0, PF)),
    "30000000 00000500 f93d0c6b 00000000 1d010000 08000100 70636900 11000200 30303030 3a33623a 30302e30 00000000",
  );
});

/** One answer of a kernel, to the request with that number. */
function message(type: number, body: Buffer, seq: number): Buffer {
  const header = { len: nlmsghdr.size + body.length, type, flags: 0, seq, pid: PORT };
  return Buffer.concat([encodeStruct(nlmsghdr, header), body]);
}

function errorOf(errno: number): Buffer {
  const body = Buffer.alloc(20);
  body.writeInt32LE(-errno, 0);
  return body;
}

/** devlink_nl_eswitch_fill, net/devlink/dev.c: the handle, then the mode. */
function eswitchAnswer(mode: number | undefined): Buffer {
  const attributes = encodeAttributes((fill) => {
    fill.string(1, "pci").string(2, PF);
    if (mode !== undefined) fill.bytes(25, Uint8Array.of(mode, 0));
  });
  return Buffer.concat([Buffer.from([29, 1, 0, 0]), attributes]);
}

/** A kernel with that family, or without, which answers the question for the mode so. */
function pretendKernel(options: { readonly hasDevlink: () => boolean; readonly answer: Buffer | number }) {
  const waiting: Buffer[] = [];
  const requests: number[] = [];
  const socket: NetlinkSocket = {
    netlinkPort: PORT,
    async sendOffThread(bytes) {
      const [request] = decodeMessages(bytes);
      if (!request) return;
      requests.push(request.type);
      const ack = message(2, errorOf(0), request.seq);
      if (request.type === 16) {
        const family = Buffer.concat([
          Buffer.from([1, 2, 0, 0]),
          encodeAttributes((fill) => fill.bytes(1, Uint8Array.of(FAMILY, 0))),
        ]);
        waiting.push(
          ...(options.hasDevlink() ? [message(16, family, request.seq), ack] : [message(2, errorOf(2), request.seq)]),
        );
        return;
      }
      const { answer } = options;
      if (typeof answer === "number") waiting.push(message(2, errorOf(answer), request.seq));
      else waiting.push(message(FAMILY, answer, request.seq), ack);
    },
    receive: () => waiting.shift(),
    receiveOffThread: async () => waiting.shift(),
    close() {},
  };
  return { devlink: Devlink.over(socket), requests };
}

for (const [what, answer, mode] of [
  ["legacy", eswitchAnswer(0), "legacy"],
  ["switchdev", eswitchAnswer(1), "switchdev"],
  ["switchdev, not active yet", eswitchAnswer(2), "switchdev"],
  ["nothing", eswitchAnswer(undefined), undefined],
  ["ENODEV: no such device", 19, undefined],
  ["EOPNOTSUPP: no switch in it", 95, undefined],
] as const) {
  test(`Devlink.eswitchMode() says ${mode} where the kernel says ${what}`, async () => {
    const { devlink } = pretendKernel({ hasDevlink: () => true, answer });
    assert.equal(await devlink.eswitchMode(PF), mode);
    devlink.close();
  });
}

test("Devlink.eswitchMode() looks up the family once, and again as long as the kernel has none", async () => {
  let hasDevlink = false;
  const { devlink, requests } = pretendKernel({ hasDevlink: () => hasDevlink, answer: eswitchAnswer(1) });
  assert.equal(await devlink.eswitchMode(PF), undefined);
  hasDevlink = true;
  assert.equal(await devlink.eswitchMode(PF), "switchdev");
  assert.equal(await devlink.eswitchMode(PF), "switchdev");
  assert.deepEqual(requests, [16, 16, FAMILY, FAMILY]);
  devlink.close();
});

test("Devlink.eswitchMode() throws what it may not query", async () => {
  const { devlink } = pretendKernel({ hasDevlink: () => true, answer: 1 });
  await assert.rejects(devlink.eswitchMode(PF), { code: "EPERM" });
  devlink.close();
});

test("decodeEswitchMode() takes no mode out of an attribute of another size", () => {
  const body = Buffer.concat([Buffer.from([29, 1, 0, 0]), encodeAttributes((fill) => fill.u32(25, 1))]);
  assert.equal(decodeEswitchMode({ type: FAMILY, flags: 0, seq: 1, port: PORT, body }), undefined);
});
