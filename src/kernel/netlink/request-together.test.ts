import assert from "node:assert/strict";
import { test } from "node:test";
import type { NetlinkSocket } from "./conversation.ts";
import { encodeStruct, nlmsghdr } from "./layout.ts";
import { decodeMessages, NLM_F_ACK } from "./message.ts";
import { requestTogether } from "./request-together.ts";

const PORT = 77;
const NLMSG_ERROR = 2;
const DATA = 16;

function message(type: number, body: Buffer, seq: number): Buffer {
  const header = { len: nlmsghdr.size + body.length, type, flags: 0, seq, pid: PORT };
  return Buffer.concat([encodeStruct(nlmsghdr, header), body]);
}

function end(errno: number, seq: number): Buffer {
  const body = Buffer.alloc(20);
  body.writeInt32LE(-errno, 0);
  return message(NLMSG_ERROR, body, seq);
}

/** A kernel that has these datagrams for whatever it is sent. */
function pretendKernel(answers: readonly Buffer[]) {
  const sent: Buffer[] = [];
  const waiting = [...answers];
  const socket: NetlinkSocket = {
    netlinkPort: PORT,
    async sendOffThread(bytes) {
      sent.push(bytes);
    },
    receive: () => waiting.shift(),
    receiveOffThread: async () => waiting.shift(),
    close() {},
  };
  return { sent, socket };
}

const requests = ["read the rings", "read the channels", "read the features"].map((op, at) => ({
  op,
  request: { type: 30, flags: 0, body: Buffer.alloc(5, at) },
}));

test("requestTogether() sends one datagram, and gives each request its own answer", async () => {
  const { sent, socket } = pretendKernel([
    message(DATA, Buffer.from("rings..."), 1),
    Buffer.concat([end(0, 1), end(95, 2)]),
    message(DATA, Buffer.from("features"), 3),
    end(0, 3),
  ]);
  const answers = await requestTogether(socket, requests);
  assert.deepEqual(
    sent.map((bytes) => decodeMessages(bytes).map(({ seq, flags }) => [seq, flags & NLM_F_ACK])),
    [[1, 2, 3].map((seq) => [seq, NLM_F_ACK])],
  );
  const found = answers.map(({ messages, refusal }) => [messages.map(({ body }) => String(body)), refusal?.code]);
  assert.deepEqual(found, [
    [["rings..."], undefined],
    [[], "EOPNOTSUPP"],
    [["features"], undefined],
  ]);
  assert.match(answers[1]?.refusal?.message ?? "", /^Cannot read the channels: /);
});

test("requestTogether() fails when an answer has no end, and takes none of another's", async () => {
  const { socket } = pretendKernel([end(0, 1), end(0, 2), end(0, 4)]);
  await assert.rejects(requestTogether(socket, requests), { code: "EPROTO", op: "read the features" });
});

test("requestTogether() sends nothing where nothing is requested", async () => {
  const { sent, socket } = pretendKernel([]);
  assert.deepEqual([await requestTogether(socket, []), sent], [[], []]);
});
