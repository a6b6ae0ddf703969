import { messageOf } from "../../async/index.ts";
import { Errno } from "../errno.ts";
import { KernelError } from "../error.ts";
import type { KernelSocket } from "../kernel-socket.ts";
import type { NetlinkMessage, NetlinkRequest } from "./message.ts";
import { decodeMessages, encodeMessage, endOf, NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR } from "./message.ts";

/** All that a conversation needs of its socket. */
export type NetlinkSocket = Pick<
  KernelSocket,
  "netlinkPort" | "sendOffThread" | "receive" | "receiveOffThread" | "close"
>;

interface RequestOptions {
  /** What is tried, for the error: "add address 10.0.0.1/24 to link 7". */
  readonly op: string;
}

/** Who gets the messages of an answer, each as it comes. */
interface Taker {
  /** The answer begins; once more where changes have cut a dump, of which this is the last try or not. */
  begin(isLast: boolean): void;
  take(message: NetlinkMessage): void;
}

export interface ListOptions {
  /** Of a try, and of an IP family, no more are kept. */
  readonly most?: number | undefined;
  /** Called where changes have cut every try, so that an entry may be missing, with the error of a caller that can do with no less. */
  readonly onDoubt?: ((doubt: KernelError) => void) | undefined;
}

/** What to make of a dump. */
interface Listing<T> extends ListOptions {
  readonly op: string;
  readonly decode: (message: NetlinkMessage) => T | undefined;
  /** Whether to decode a message at all; all by default. */
  readonly keep?: ((message: NetlinkMessage) => boolean) | undefined;
  /** All do by default. Called again for the same where changes have cut a dump, so it is no place to count. */
  readonly concerns?: ((entry: T) => boolean) | undefined;
  /** Entries of two dumps that are one and the same have the same key. By default only what is equal has. */
  readonly keyOf?: ((entry: T) => unknown) | undefined;
}

/**
 * How often a dump is tried that changes cut (the kernel compares a number between its pieces of 32 KiB, net->dev_base_seq for links). On a
 * slow machine where links always come and go every one is.
 */
const DUMP_TRIES = 4;

/** How an answer went: of one that was not broken off all pieces are there. */
type Outcome = "whole" | "changed-meanwhile" | "broken-off";

/**
 * One request at a time over one socket. Each waits in the kernel for its one lock for links (rtnl), which every process on the node
 * may hold for tens of milliseconds: who moves a link, or a namespace that ends. The main thread does not wait with it.
 */
export class Conversation {
  /** What `write`, `one` and `list` have requested so far, of every socket of this process. */
  static readonly totals = { reads: 0, writes: 0 };
  readonly #socket: NetlinkSocket;
  readonly #port: number;
  #seq = 0;
  #tail: Promise<unknown> = Promise.resolve();
  #closed = false;

  constructor(socket: NetlinkSocket) {
    this.#socket = socket;
    this.#port = socket.netlinkPort;
  }

  async write(request: NetlinkRequest, op: string): Promise<void> {
    Conversation.totals.writes++;
    await this.request(request, { op });
  }

  async one<T>(request: NetlinkRequest, op: string, decode: (message: NetlinkMessage) => T): Promise<T | undefined> {
    Conversation.totals.reads++;
    const [message] = await this.request(request, { op });
    return message && decoded(op, () => decode(message));
  }

  /**
   * All entries of a dump. Where something came or went during each of its tries, those of the last two: such a dump has all that stays, but
   * that before Linux 6.9 what goes can hide another entry (rtnl_dump_ifinfo and inet_dump_ifaddr continue at a number within a hash
   * bucket), or what comes show one twice. What went a moment ago may be listed. `onDoubt` hears of it.
   * @throws {KernelError} EINTR when the kernel itself has broken each try off.
   */
  async list<T>(request: NetlinkRequest, listing: Listing<T>): Promise<T[]> {
    Conversation.totals.reads++;
    const { op, decode, keep = () => true, concerns = () => true, most = Number.POSITIVE_INFINITY } = listing;
    const { keyOf = (entry) => JSON.stringify(entry), onDoubt = () => {} } = listing;
    let before: T[] = [];
    let entries: T[] = [];
    // Decoded as they come: a message that is kept keeps the piece of the dump that it came in, of 32 KiB.
    const outcome = await this.#inTurn(request, op, {
      begin(isLast) {
        // Only then: no more than two tries are in memory, and those before the last one at a time.
        if (isLast) before = entries;
        entries = [];
      },
      take(message) {
        if (!keep(message)) return;
        const found = decoded(op, () => decode(message));
        if (found !== undefined && concerns(found) && entries.length < most) entries.push(found);
      },
    });
    if (outcome === "whole") return entries;
    onDoubt(new KernelError(op, Errno.EINTR, `it changed during each of ${DUMP_TRIES} tries, and one may be missing`));
    return [...new Map([...before, ...entries].map((entry) => [keyOf(entry), entry])).values()];
  }

  /**
   * Sends a request that is for no dump, and gives the messages of the answer.
   * @throws {KernelError} with the kernel's code and its own words.
   */
  async request(request: NetlinkRequest, { op }: RequestOptions): Promise<NetlinkMessage[]> {
    const messages: NetlinkMessage[] = [];
    await this.#inTurn(request, op, { begin() {}, take: (message) => void messages.push(message) });
    return messages;
  }

  /** Closes the socket as soon as the request that runs is done; those that wait fail. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    void this.#tail.then(() => this.#socket.close());
  }

  async #inTurn(request: NetlinkRequest, op: string, taker: Taker): Promise<Outcome> {
    const answered = this.#tail.then(() => this.#talk(request, op, taker));
    this.#tail = answered.catch(() => {});
    return await answered;
  }

  async #talk(request: NetlinkRequest, op: string, taker: Taker): Promise<Outcome> {
    const isDump = (request.flags & NLM_F_DUMP) === NLM_F_DUMP && (request.flags & NLM_F_ACK) === 0;
    for (let tries = 1; ; tries++) {
      if (this.#closed) throw new KernelError(op, Errno.EBADF, "the socket is closed");
      const seq = (this.#seq + 1) >>> 0 || 1;
      this.#seq = seq;
      const bytes = encodeMessage(isDump ? request : { ...request, flags: request.flags | NLM_F_ACK }, seq);
      await this.#socket.sendOffThread(bytes);
      taker.begin(tries === DUMP_TRIES);
      const outcome = await this.#collect(seq, { op, isDump }, taker);
      if (outcome === "whole") return outcome;
      if (tries < DUMP_TRIES) continue;
      if (outcome === "changed-meanwhile") return outcome;
      throw new KernelError(op, Errno.EINTR, `the kernel broke it off ${tries} times, for it changed meanwhile`);
    }
  }

  /** Others are left over from a request that failed half way; they can be of no other (openNetlinkSocket: it hears only the kernel). */
  #isAnswer({ seq, port }: NetlinkMessage, sent: number): boolean {
    return seq === sent && port === this.#port;
  }

  async #receive(isDump: boolean): Promise<Buffer | undefined> {
    return isDump ? await this.#socket.receiveOffThread() : this.#socket.receive();
  }

  async #collect(
    seq: number,
    { op, isDump }: RequestOptions & { readonly isDump: boolean },
    { take }: Pick<Taker, "take">,
  ): Promise<Outcome> {
    let outcome: Outcome = "whole";
    for (let bytes = await this.#receive(isDump); bytes; bytes = await this.#receive(isDump)) {
      for (const message of parse(bytes, op)) {
        if (!this.#isAnswer(message, seq)) continue;
        if ((message.flags & NLM_F_DUMP_INTR) !== 0) outcome = "changed-meanwhile";
        const end = endOf(message);
        if (!end) take(message);
        else if (end.errno === 0) return outcome;
        else if (end.errno === Errno.EINTR) return "broken-off";
        else throw new KernelError(op, end.errno, end.text);
      }
    }
    throw new KernelError(op, Errno.EPROTO, "the kernel's answer has no end");
  }
}

function decoded<T>(op: string, decode: () => T): T {
  try {
    return decode();
  } catch (error) {
    if (error instanceof RangeError) throw new KernelError(op, Errno.EBADMSG, error.message);
    throw error;
  }
}

function parse(bytes: Buffer, op: string): NetlinkMessage[] {
  try {
    return decodeMessages(bytes);
  } catch (error) {
    throw new KernelError(op, Errno.EPROTO, messageOf(error));
  }
}
