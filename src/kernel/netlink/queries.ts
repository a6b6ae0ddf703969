// How rtnetlink is queried: each answer decoded as it comes, both families as one, and all counted.
import { Errno } from "../errno.ts";
import { KernelError } from "../error.ts";
import type { IpFamily } from "./address.ts";
import { Conversation, type NetlinkPipe, type RequestOptions } from "./conversation.ts";
import type { NetlinkMessage, NetlinkRequest } from "./message.ts";

const NO_SUCH_FAMILY: readonly number[] = [Errno.EAFNOSUPPORT, Errno.EOPNOTSUPP];

/** What to make of a dump. */
interface Listing<T> {
  readonly op: string;
  readonly decode: (message: NetlinkMessage) => T | undefined;
  /** Whether to decode a message at all. */
  readonly keep?: RequestOptions["keep"];
  /** All do by default. Called again for the same where changes have cut a dump. */
  readonly concerns?: ((entry: T) => boolean) | undefined;
}

export class Queries {
  /** Requests so far of every socket of this process. */
  static readonly totals = { reads: 0, writes: 0 };
  readonly #conversation: Conversation;

  constructor(pipe: NetlinkPipe) {
    this.#conversation = new Conversation(pipe);
  }

  close(): void {
    this.#conversation.close();
  }

  async write(request: NetlinkRequest, op: string): Promise<void> {
    Queries.totals.writes++;
    await this.#conversation.request(request, { op });
  }

  async one<T>(request: NetlinkRequest, op: string, decode: (message: NetlinkMessage) => T): Promise<T | undefined> {
    const [message] = await this.#read(request, { op });
    return message && decoded(op, () => decode(message));
  }

  async list<T>(request: NetlinkRequest, { op, decode, keep, concerns }: Listing<T>): Promise<T[]> {
    // Decoded as they come, a piece of the dump at a time: what does not concern the caller is neither kept nor waited with.
    const isWanted = (message: NetlinkMessage) => {
      const found = decoded(op, () => decode(message));
      return found !== undefined && (concerns?.(found) ?? true);
    };
    const messages = await this.#read(request, { op, keep: concerns ? isWanted : keep });
    return decoded(op, () => messages.map(decode).filter((found) => found !== undefined));
  }

  /** A kernel without IPv6 refuses the question, or answers it with all it has, which is IPv4. */
  async bothFamilies<T extends { readonly family: IpFamily }>(list: (family: IpFamily) => Promise<T[]>): Promise<T[]> {
    const v4 = await list(4);
    try {
      return [...v4, ...(await list(6)).filter((entry) => entry.family === 6)];
    } catch (error) {
      if (error instanceof KernelError && NO_SUCH_FAMILY.includes(error.errno)) return v4;
      throw error;
    }
  }

  #read(request: NetlinkRequest, options: RequestOptions): Promise<NetlinkMessage[]> {
    Queries.totals.reads++;
    return this.#conversation.request(request, options);
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
