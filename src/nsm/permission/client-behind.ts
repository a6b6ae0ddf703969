import type { Connection, PathSegment } from "../../gen/connection_pb.ts";
import { decodeToken, parseSpiffeId } from "../../identity/index.ts";

/** Those whose token cannot be read: they are one client. */
export const UNIDENTIFIED = "";

/** For whom a manager calls. */
export interface Behind {
  /**
   * Who answers for the call: the subject of the token in the segment before the manager's own. The manager has verified that token
   * by the certificate of its caller, as it verifies that its own is for it (nsm-protocol §2.4). Absent where the path begins with the
   * manager.
   */
  readonly client?: string;
  /** The subject of the path's first token, where `client` is not the first: whose connection it is, by the word of `client`. */
  readonly origin?: string;
}

/** Who is behind the caller, before or after we have put ourselves on the path. */
export function clientBehind({ path }: Pick<Connection, "path">, ownName: string): Behind {
  const segments = path?.pathSegments ?? [];
  const index = path?.index ?? 0;
  const managerAt = segments[index]?.name === ownName ? index - 1 : index;
  const client = segments[managerAt - 1];
  const [first] = segments;
  if (!client || !first) return {};
  return { client: subjectOf(client), ...(client !== first && { origin: subjectOf(first) }) };
}

function subjectOf({ token }: PathSegment): string {
  try {
    const { sub } = decodeToken(token);
    parseSpiffeId(sub);
    return sub;
  } catch {
    return UNIDENTIFIED;
  }
}

/**
 * What one client behind the manager may have of the manager's share: two thirds of what its other clients leave. So a client alone has
 * most of it, and one that comes later finds room. Many names make that little: each has `least` all the same, as long as there is some.
 */
export function clientShare(limit: number, ofOthers: number, least = 1): number {
  const rest = Math.max(0, limit - ofOthers);
  return Math.max(Math.floor((2 * rest) / 3), Math.min(least, rest));
}

/** How much of one thing each client behind the manager has in use. */
class ClientUses {
  readonly #limit: number;
  readonly #uses = new Map<string, number>();
  #all = 0;

  constructor(limit: number) {
    this.#limit = limit;
  }

  take(client: string, amount: number): boolean {
    const own = this.#uses.get(client) ?? 0;
    if (own + amount > clientShare(this.#limit, this.#all - own, amount)) return false;
    this.#uses.set(client, own + amount);
    this.#all += amount;
    return true;
  }

  give(client: string, amount: number): void {
    const left = (this.#uses.get(client) ?? 0) - amount;
    if (left > 0) this.#uses.set(client, left);
    else this.#uses.delete(client);
    this.#all -= amount;
  }
}

/** The manager's share of calls under way. */
export interface CallShare {
  readonly calls: number;
  /** What their requests take that are decoded. */
  readonly heldBytes: number;
}

/** Requests under way, for each client behind the manager. */
export class ClientCalls {
  readonly #calls: ClientUses;
  readonly #heldBytes: ClientUses;

  constructor({ calls, heldBytes }: CallShare) {
    this.#calls = new ClientUses(calls);
    this.#heldBytes = new ClientUses(heldBytes);
  }

  /** Begins one; false when the client has its share. */
  begin(client: string, heldBytes: number): boolean {
    if (!this.#calls.take(client, 1)) return false;
    if (this.#heldBytes.take(client, heldBytes)) return true;
    this.#calls.give(client, 1);
    return false;
  }

  end(client: string, heldBytes: number): void {
    this.#calls.give(client, 1);
    this.#heldBytes.give(client, heldBytes);
  }
}
