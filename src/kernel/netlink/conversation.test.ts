import assert from "node:assert/strict";
import { test } from "node:test";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import type { KernelError } from "../error.ts";
import { encodeAttributes } from "./attribute.ts";
import { Conversation, type NetlinkSocket } from "./conversation.ts";
import { encodeStruct, nlmsghdr } from "./layout.ts";
import { decodeMessages, type NetlinkMessage, NLM_F_ACK, NLM_F_DUMP } from "./message.ts";

const PORT = 4242;
const DONE = 3;
const ERROR = 2;
const DATA = 20;
const INTERRUPTED = 0x10;
const ACK_TLVS = 0x200;
const CAPPED = 0x100;
const PIECES = 20;
const dump = { type: 22, flags: NLM_F_DUMP, body: Buffer.alloc(4) };
const change = { type: 20, flags: NLM_F_ACK, body: Buffer.alloc(4) };

interface Answer {
  readonly type: number;
  readonly flags?: number;
  readonly body?: Buffer;
  readonly seqOff?: number;
  readonly port?: number;
}

function bytesOf({ type, flags = 0, body = Buffer.alloc(4), seqOff = 0, port = PORT }: Answer, seq: number): Buffer {
  const len = nlmsghdr.size + body.length;
  const header = encodeStruct(nlmsghdr, { len, type, flags, seq: seq + seqOff, pid: port });
  return Buffer.concat([header, body]);
}

/** A kernel that answers the n-th request with the n-th script. */
function pretendKernel(...scripts: readonly (readonly Answer[])[]) {
  const waiting: Buffer[] = [];
  const requests: { type: number; flags: number }[] = [];
  const take = (bytes: Buffer) => {
    const [request] = decodeMessages(bytes);
    assert.ok(request);
    const script = scripts[Math.min(requests.length, scripts.length - 1)] ?? [];
    requests.push({ type: request.type, flags: request.flags });
    waiting.push(...script.map((answer) => bytesOf(answer, request.seq)));
  };
  const socket: NetlinkSocket = {
    netlinkPort: PORT,
    sendOffThread: async (bytes) => take(bytes),
    receive: () => waiting.shift(),
    receiveOffThread: async () => waiting.shift(),
    close() {},
  };
  return { socket, requests };
}

function errorBody(errno: number, options: { readonly quoted: number; readonly text?: string }): Buffer {
  const quote = encodeStruct(nlmsghdr, { len: nlmsghdr.size + options.quoted });
  const code = Buffer.alloc(4);
  code.writeInt32LE(-errno);
  const attributes = encodeAttributes((encoder) => options.text && encoder.string(1, options.text));
  return Buffer.concat([code, quote, Buffer.alloc(options.quoted), attributes]);
}

const letters = { op: "list the letters", decode: ({ body }: NetlinkMessage) => body.toString("utf8", 0, 2) };
const letter = (text: string, flags = 0): Answer => ({ type: DATA, flags, body: Buffer.from(`${text}..`) });

test("Conversation.list() gathers a dump of many datagrams up to its end", async () => {
  const kernel = pretendKernel([letter("a1"), letter("b1"), { type: DONE }]);
  assert.deepEqual(await new Conversation(kernel.socket).list(dump, letters), ["a1", "b1"]);
  assert.equal(kernel.requests.length, 1);
});

const BROKEN_OFF: Answer = { type: DONE, body: errorBody(4, { quoted: 0 }) }; // EINTR

const cuts: readonly { says: string; cut: readonly Answer[] }[] = [
  { says: "changes cut", cut: [letter("a1", INTERRUPTED), { type: DONE }] },
  { says: "changes cut at its end", cut: [letter("a1"), { type: DONE, flags: INTERRUPTED }] },
  { says: "the kernel has broken off", cut: [letter("a1"), BROKEN_OFF] },
];
for (const { says, cut } of cuts) {
  test(`Conversation.list() begins a dump again that ${says}, and takes nothing of it`, async () => {
    const kernel = pretendKernel(cut, [letter("b1"), { type: DONE }]);
    assert.deepEqual(await new Conversation(kernel.socket).list(dump, letters), ["b1"]);
    assert.equal(kernel.requests.length, 2);
  });
}

test("Conversation.list() takes of a dump that never holds still what the last two tries have, once each and as seen last", async () => {
  const end = { type: DONE, flags: INTERRUPTED };
  const tries = [["z1"], ["z1"], ["a1", "b1", "c1"], ["c2", "a2", "d2", "d2"]];
  const kernel = pretendKernel(...tries.map((one) => [...one.map((text) => letter(text)), end]));
  const listing = { ...letters, keyOf: (text: string) => text[0] };
  assert.deepEqual(await new Conversation(kernel.socket).list(dump, listing), ["a2", "b1", "c2", "d2"]);
  assert.equal(kernel.requests.length, 4);
});

test("Conversation.list() keeps no more of a try than it may, counts each try by itself, and has all of them decided on", async () => {
  const cut = ["a1", "b1", "c1"].map((text) => letter(text, INTERRUPTED));
  const kernel = pretendKernel([...cut, { type: DONE }]);
  let decided = 0;
  const concerns = () => ++decided > 0;
  const listing = { ...letters, concerns, most: 2 };
  assert.deepEqual(await new Conversation(kernel.socket).list(dump, listing), ["a1", "b1"]);
  assert.equal(decided, 12);
});

for (const [says, cuts] of [
  ["whole at the last try", 3],
  ["cut at each", 4],
] as const) {
  test(`Conversation.list() says that an entry may be missing only of a dump that is not whole: ${says}`, async () => {
    const tries = Array.from({ length: 4 }, (_, at) => [
      letter("a1"),
      { type: DONE, flags: at < cuts ? INTERRUPTED : 0 },
    ]);
    const doubts: string[] = [];
    const onDoubt = ({ code, message }: KernelError) => doubts.push(`${code} ${message}`);
    const kernel = pretendKernel(...tries);
    assert.deepEqual(await new Conversation(kernel.socket).list(dump, { ...letters, onDoubt }), ["a1"]);
    const doubt = "EINTR Cannot list the letters: it changed during each of 4 tries, and one may be missing (EINTR)";
    assert.deepEqual(doubts, cuts < 4 ? [] : [doubt]);
  });
}

test("Conversation.list() takes entries for the same that are equal, unless it is known what they are", async () => {
  const cut = (text: string) => [letter(text), { type: DONE, flags: INTERRUPTED }];
  const kernel = pretendKernel(cut("a1"), cut("a1"), cut("a1"), cut("a2"));
  assert.deepEqual(await new Conversation(kernel.socket).list(dump, letters), ["a1", "a2"]);
});

test("Conversation.list() gives up on a dump that the kernel always breaks off", async () => {
  const kernel = pretendKernel([letter("a1"), BROKEN_OFF]);
  const talk = new Conversation(kernel.socket).list(dump, letters);
  await assert.rejects(talk, { code: "EINTR", message: /list the letters: the kernel broke it off 4 times/ });
});

test("Conversation.request() passes over answers to others", async () => {
  const stray = [
    { type: DATA, seqOff: -1 },
    { type: ERROR, body: errorBody(1, { quoted: 0 }), port: 1 },
  ];
  const kernel = pretendKernel([...stray, { type: DATA }, { type: ERROR, body: errorBody(0, { quoted: 0 }) }]);
  const answer = await new Conversation(kernel.socket).request(change, { op: "change" });
  assert.deepEqual(
    answer.map((message) => message.port),
    [PORT],
  );
});

const texts = [
  { says: "when the request is quoted", flags: ACK_TLVS, quoted: 20 },
  { says: "when it is not", flags: ACK_TLVS | CAPPED, quoted: 0 },
];
for (const { says, flags, quoted } of texts) {
  test(`Conversation.request() reports the kernel's own words ${says}`, async () => {
    const body = errorBody(22, { quoted, text: "Invalid prefix for given prefix length" });
    const kernel = pretendKernel([{ type: ERROR, flags, body }]);
    const talk = new Conversation(kernel.socket).request(change, { op: "add route x" });
    await assert.rejects(talk, { code: "EINVAL", detail: "Invalid prefix for given prefix length", op: "add route x" });
  });
}

const broken = [
  { says: "no end", answers: [{ type: DATA }] },
  { says: "a message cut short", answers: [{ type: DATA, body: Buffer.alloc(3) }, { type: DATA }] },
];
for (const { says, answers } of broken) {
  test(`Conversation.request() refuses an answer with ${says}`, async () => {
    const talk = new Conversation(pretendKernel(answers).socket).request(change, { op: "change" });
    await assert.rejects(talk, { code: "EPROTO" });
  });
}

test("Conversation takes a dump on another thread, piece by piece, and other answers here", async () => {
  const done = errorBody(0, { quoted: 0 });
  const { socket } = pretendKernel([{ type: DATA }, { type: DONE, body: done }], [{ type: ERROR, body: done }]);
  const taken: string[] = [];
  const receive = () => {
    taken.push("here");
    return socket.receive();
  };
  const receiveOffThread = () => {
    taken.push("on another thread");
    return socket.receiveOffThread();
  };
  const talk = new Conversation({ ...socket, receive, receiveOffThread });
  await talk.request(dump, { op: "list" });
  await talk.request(change, { op: "set" });
  assert.deepEqual(taken, ["on another thread", "on another thread", "here"]);
});

test("Conversation.list() keeps what it had of a try for the last one only", async () => {
  setFlagsFromString("--expose-gc");
  const collect = runInNewContext("gc") as () => void;
  const entries: WeakRef<object>[] = [];
  const alive: number[] = [];
  const kernel = pretendKernel([{ type: DATA }, { type: DATA }, { type: DONE, flags: INTERRUPTED }]);
  const receiveOffThread = async () => {
    await new Promise(setImmediate);
    const sent = kernel.socket.receive();
    if (sent && decodeMessages(sent)[0]?.type !== DONE) return sent;
    collect();
    alive.push(entries.filter((entry) => entry.deref() !== undefined).length);
    return sent;
  };
  const decode = () => {
    const entry = { number: entries.length };
    entries.push(new WeakRef(entry));
    return entry;
  };
  await new Conversation({ ...kernel.socket, receiveOffThread }).list(dump, { op: "list", decode });
  assert.deepEqual(alive, [2, 2, 2, 4]);
});

const ACK = { type: ERROR, body: errorBody(0, { quoted: 0 }) };

/** The same kernel, which takes a request only when it is let. */
function slowKernel() {
  const kernel = pretendKernel([ACK]);
  const steps: string[] = [];
  const waiting: (() => void)[] = [];
  const socket: NetlinkSocket = {
    ...kernel.socket,
    async sendOffThread(bytes) {
      steps.push("send");
      await new Promise<void>((resolve) => waiting.push(resolve));
      await kernel.socket.sendOffThread(bytes);
    },
    receive() {
      steps.push("receive");
      return kernel.socket.receive();
    },
    close: () => void steps.push("close"),
  };
  const letPass = async () => {
    await new Promise(setImmediate);
    waiting.shift()?.();
    await new Promise(setImmediate);
  };
  return { talk: new Conversation(socket), steps, letPass };
}

test("Conversation.list() keeps no piece of a dump of which it has kept an entry", async () => {
  setFlagsFromString("--expose-gc");
  const collect = runInNewContext("gc") as () => void;
  const pieces: WeakRef<ArrayBufferLike>[] = [];
  const kernel = pretendKernel([...Array.from({ length: PIECES }, () => ({ type: DATA })), { type: DONE }]);
  let alive = Number.POSITIVE_INFINITY;
  const receiveOffThread = async () => {
    await new Promise(setImmediate);
    const sent = kernel.socket.receive();
    if (!sent) return undefined;
    if (pieces.length === PIECES) {
      collect();
      alive = pieces.filter((piece) => piece.deref() !== undefined).length;
    }
    const piece = Buffer.allocUnsafeSlow(sent.length); // in memory of its own
    sent.copy(piece);
    pieces.push(new WeakRef(piece.buffer));
    return piece;
  };
  const talk = new Conversation({ ...kernel.socket, receiveOffThread });
  const entries = await talk.list(dump, { op: "list", decode: ({ seq }) => seq });
  assert.equal(entries.length, PIECES);
  assert.ok(alive <= 2, `${alive} of ${PIECES} pieces`);
});

test("Conversation sends a request when the one before has its answer, also after one that failed", async () => {
  const { talk, steps, letPass } = slowKernel();
  const both = Promise.all([talk.request(change, { op: "one" }), talk.request(change, { op: "two" })]);
  await letPass();
  assert.deepEqual(steps, ["send", "receive", "send"]);
  await letPass();
  await both;
  const kernel = pretendKernel([{ type: ERROR, body: errorBody(1, { quoted: 0 }) }], [ACK]);
  const again = new Conversation(kernel.socket);
  const failed = assert.rejects(again.request(change, { op: "one" }), { code: "EPERM" });
  await again.request(change, { op: "two" });
  await failed;
});

test("Conversation.close() closes once, after the request that runs, and refuses those that wait", async () => {
  const { talk, steps, letPass } = slowKernel();
  const first = talk.request(change, { op: "one" });
  const second = assert.rejects(talk.request(change, { op: "two" }), { code: "EBADF" });
  await new Promise(setImmediate);
  talk.close();
  talk.close();
  const late = assert.rejects(talk.request(change, { op: "three" }), { code: "EBADF" });
  await new Promise(setImmediate);
  assert.deepEqual(steps, ["send"]);
  await letPass();
  await Promise.all([first, second, late]);
  assert.deepEqual(steps, ["send", "receive", "close"]);
});
