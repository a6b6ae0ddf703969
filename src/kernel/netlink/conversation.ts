import { messageOf } from "../../async/index.ts";
import { Errno } from "../errno.ts";
import { KernelError } from "../error.ts";
import type { NetlinkMessage, NetlinkRequest } from "./message.ts";
import { decodeMessages, encodeMessage, endOf, NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR } from "./message.ts";

/** Bytes out, bytes in: all that a conversation needs of its socket. */
export interface NetlinkPipe {
  /** The kernel's name of this socket; answers carry it. */
  readonly port: number;
  /** The kernel works meanwhile: once it is sent, the answer is there. On another thread. @throws {KernelError} */
  send(bytes: Buffer): Promise<void>;
  /** The next datagram, undefined when none waits. @throws {KernelError} */
  receive(): Buffer | undefined;
  /** The same on another thread: of a dump the kernel makes each further piece while the one before is taken. */
  receiveDumped(): Promise<Buffer | undefined>;
  close(): void;
}

export interface RequestOptions {
  /** What is tried, for the error: "add address 10.0.0.1/24 to link 7". */
  readonly op: string;
  /** Which messages of the answer to keep; all of them by default. What is left out takes no memory. */
  readonly keep?: ((message: NetlinkMessage) => boolean) | undefined;
}

/** How often a dump is begun again when changes cut it. */
const DUMP_TRIES = 10;

/**
 * One request at a time over one socket. Each waits in the kernel for its one lock for links (rtnl), which every process on the node
 * may hold for tens of milliseconds: who moves a link, or a namespace that ends. The main thread does not wait with it.
 */
export class Conversation {
  readonly #pipe: NetlinkPipe;
  #seq = 0;
  #tail: Promise<unknown> = Promise.resolve();
  #closed = false;

  constructor(pipe: NetlinkPipe) {
    this.#pipe = pipe;
  }

  /**
   * Sends the request and gives the messages of the answer.
   * @throws {KernelError} with the kernel's code and its own words.
   */
  request(request: NetlinkRequest, options: RequestOptions): Promise<NetlinkMessage[]> {
    const answer = this.#tail.then(() => this.#talk(request, options));
    this.#tail = answer.catch(() => {});
    return answer;
  }

  /** Closes the socket as soon as the request that runs is done; those that wait fail. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    void this.#tail.then(() => this.#pipe.close());
  }

  async #talk(request: NetlinkRequest, options: RequestOptions): Promise<NetlinkMessage[]> {
    const isDump = (request.flags & NLM_F_DUMP) === NLM_F_DUMP && (request.flags & NLM_F_ACK) === 0;
    for (let tries = 1; ; tries++) {
      if (this.#closed) throw new KernelError(options.op, Errno.EBADF, "the socket is closed");
      const seq = (this.#seq + 1) >>> 0 || 1;
      this.#seq = seq;
      const bytes = encodeMessage(isDump ? request : { ...request, flags: request.flags | NLM_F_ACK }, seq);
      await this.#pipe.send(bytes);
      const { messages, interrupted } = await this.#collect(seq, { ...options, isDump });
      if (!interrupted) return messages;
      if (tries === DUMP_TRIES)
        throw new KernelError(options.op, Errno.EINTR, `changed ${tries} times while it was read`);
    }
  }

  /** Others are left over from a request that failed half way; they can be of no other (NetlinkPipe hears only the kernel). */
  #isAnswer({ seq, port }: NetlinkMessage, asked: number): boolean {
    return seq === asked && port === this.#pipe.port;
  }

  async #receive(isDump: boolean): Promise<Buffer | undefined> {
    return isDump ? await this.#pipe.receiveDumped() : this.#pipe.receive();
  }

  async #collect(
    seq: number,
    { op, keep = () => true, isDump }: RequestOptions & { readonly isDump: boolean },
  ): Promise<{ messages: NetlinkMessage[]; interrupted: boolean }> {
    const messages: NetlinkMessage[] = [];
    let interrupted = false;
    for (let bytes = await this.#receive(isDump); bytes; bytes = await this.#receive(isDump)) {
      for (const message of parse(bytes, op)) {
        if (!this.#isAnswer(message, seq)) continue;
        interrupted ||= (message.flags & NLM_F_DUMP_INTR) !== 0;
        const end = endOf(message);
        if (!end) messages.push(...(keep(message) ? [message] : []));
        else if (end.errno === 0) return { messages, interrupted };
        else if (end.errno === Errno.EINTR) return { messages, interrupted: true };
        else throw new KernelError(op, end.errno, end.text);
      }
    }
    throw new KernelError(op, Errno.EPROTO, "the kernel's answer has no end");
  }
}

function parse(bytes: Buffer, op: string): NetlinkMessage[] {
  try {
    return decodeMessages(bytes);
  } catch (error) {
    throw new KernelError(op, Errno.EPROTO, messageOf(error));
  }
}
