import { messageOf } from "../../async/index.ts";
import { Errno } from "../errno.ts";
import { KernelError } from "../error.ts";
import type { NetlinkSocket } from "./conversation.ts";
import {
  decodeMessages,
  encodeMessage,
  endOf,
  type NetlinkMessage,
  type NetlinkRequest,
  NLM_F_ACK,
} from "./message.ts";

/** A request and what it is for: "read the rings of link 7". No dump: those come in pieces. */
export interface BatchedRequest {
  readonly op: string;
  readonly request: NetlinkRequest;
}

/** What the kernel answered to one of them. */
export interface BatchedAnswer {
  readonly messages: readonly NetlinkMessage[];
  readonly refusal: KernelError | undefined;
}

/**
 * Sends all requests as one datagram: the kernel works through it in order (netlink_rcv_skb), each whatever became of the one before,
 * and all answers wait when the one call returns. For a socket that nothing else uses meanwhile.
 * @throws {KernelError} when an answer is missing, ENOBUFS when they did not fit.
 */
export async function requestTogether(
  socket: NetlinkSocket,
  requests: readonly BatchedRequest[],
): Promise<readonly BatchedAnswer[]> {
  if (requests.length === 0) return [];
  const encoded = requests.map(({ request }, index) => {
    const bytes = encodeMessage({ ...request, flags: request.flags | NLM_F_ACK }, index + 1);
    return Buffer.concat([bytes, Buffer.alloc(-bytes.length & 3)]);
  });
  await socket.sendOffThread(Buffer.concat(encoded));
  const answers = requests.map(({ op }) => ({ op, messages: [] as NetlinkMessage[], errno: -1, text: "" }));
  for (let bytes = socket.receive(); bytes; bytes = socket.receive()) {
    for (const message of parsed(bytes)) {
      const answer = message.port === socket.netlinkPort ? answers[message.seq - 1] : undefined;
      const end = answer && endOf(message);
      if (end) Object.assign(answer, { errno: end.errno, text: end.text });
      else answer?.messages.push(message);
    }
  }
  return answers.map(({ op, messages, errno, text }) => {
    if (errno < 0) throw new KernelError(op, Errno.EPROTO, "the kernel's answer has no end");
    return { messages, refusal: errno === 0 ? undefined : new KernelError(op, errno, text || undefined) };
  });
}

function parsed(bytes: Buffer): NetlinkMessage[] {
  try {
    return decodeMessages(bytes);
  } catch (error) {
    throw new KernelError("read the answers to many requests", Errno.EPROTO, messageOf(error));
  }
}
