// What one peer may have of us: connections, those that we dial for it, calls under way, bytes of requests whose rest is awaited, what is
// decoded, descriptors.
// A peer is its SPIFFE ID; all that have none are one. The manager's part is its own: docs/decisions/047.
import type { Clock } from "../async/index.ts";
import { type Admitted, DecodeQueue } from "./decode-queue.ts";
import { HeldRequests, type Undecoded } from "./held-requests.ts";
import { type OwnedConnection, OwnedConnections } from "./owned-connections.ts";
import { Rate } from "./rate.ts";
import type { RpcLimits } from "./rpc-limits.ts";
import { Shares } from "./shares.ts";

/** How much of something may be held at once. */
export interface Budget {
  /** Takes it all, or nothing and answers false. */
  take(amount: number): boolean;
  give(amount: number): void;
}

/** What can be refused to a peer here. */
export const LIMIT_KINDS = [
  "connections",
  "calls",
  "arrival-bytes",
  "answer-bytes",
  "descriptors",
  "dials",
  "endpoint-sockets",
] as const;
/** One of them. */
export type LimitKind = (typeof LIMIT_KINDS)[number];

interface PeerLimitsOptions {
  readonly limits: RpcLimits;
  readonly clock: Pick<Clock, "monotonicMs" | "after">;
  /** By default no peer is. */
  readonly isManager?: ((owner: string) => boolean) | undefined;
  readonly onRefused?: ((kind: LimitKind, owner: string) => void) | undefined;
}

/** Requests of full size that may be half received at once on one connection. */
const MESSAGES_IN_ARRIVAL = 4;

/** Every owner of what one server, or all servers of one program, holds. */
export class PeerLimits {
  readonly #limits: RpcLimits;
  readonly #isManager: (owner: string) => boolean;
  readonly #onRefused: (kind: LimitKind, owner: string) => void;
  readonly #connections: OwnedConnections;
  readonly #dials: OwnedConnections;
  readonly #sockets: OwnedConnections;
  readonly #calls: Shares;
  readonly #arrival: Shares;
  readonly #answers: Shares;
  readonly #descriptors: Shares;
  readonly #decoding: DecodeQueue;
  /** Descriptors of connections whose peer is not known yet: one owner, apart from those that have none. */
  readonly unknownDescriptors: Budget;

  constructor({ limits, clock, isManager = () => false, onRefused = () => {} }: PeerLimitsOptions) {
    this.#limits = limits;
    this.#isManager = isManager;
    this.#onRefused = onRefused;
    this.#connections = new OwnedConnections({ limits: limits.connections, clock, isManager });
    this.#dials = new OwnedConnections({ limits: limits.dials, clock, isManager });
    this.#sockets = new OwnedConnections({ limits: limits.endpointSockets, clock, isManager });
    this.#calls = new Shares(limits.calls, isManager);
    this.#arrival = new Shares(limits.arrivalBytes, isManager);
    this.#answers = new Shares(limits.answerBytes, isManager);
    this.#descriptors = new Shares(limits.descriptors, isManager);
    const held = new HeldRequests(limits.heldBytes, isManager);
    this.#decoding = new DecodeQueue({ rate: new Rate(limits.decodedElements, isManager, clock), held, clock });
    const { unknownDescriptors } = limits;
    const unknown = new Shares({ each: 0, others: 0, manager: unknownDescriptors }, () => true);
    this.unknownDescriptors = this.#budget(unknown, "", "descriptors");
  }

  /** Whether it is trusted: what it does too much of is refused, and costs it nothing else. */
  isManager(owner: string): boolean {
    return this.#isManager(owner);
  }

  get connectionCount(): number {
    return this.#connections.count;
  }

  /** Takes in a connection that a peer has made; false where there is no room for it. */
  add(connection: OwnedConnection): boolean {
    return this.#addTo(this.#connections, "connections", connection);
  }

  /** It has ended; a second time does nothing. */
  remove(connection: OwnedConnection): void {
    this.#connections.remove(connection);
  }

  /** Takes in a connection that is to be dialled for an owner's call; false where there is no room for it. */
  addDial(connection: OwnedConnection): boolean {
    return this.#addTo(this.#dials, "dials", connection);
  }

  /** Its dial has failed, or it has ended; a second time does nothing. */
  removeDial(connection: OwnedConnection): void {
    this.#dials.remove(connection);
  }

  /** Takes in the socket of an endpoint that is to be kept for an owner's call; false where there is no room for it. */
  addSocket(socket: OwnedConnection): boolean {
    return this.#addTo(this.#sockets, "endpoint-sockets", socket);
  }

  /** It has been closed; a second time does nothing. */
  removeSocket(socket: OwnedConnection): void {
    this.#sockets.remove(socket);
  }

  /** What a connection of the owner may say that it takes at once: no more than would be begun. */
  callsAtOnce(owner: string): number {
    const { calls, maxConcurrentCalls } = this.#limits;
    return this.#isManager(owner) ? calls.manager : Math.min(calls.each, maxConcurrentCalls);
  }

  /** Begins a call; false when the owner has as many as it may. */
  beginCall(owner: string): boolean {
    const isTaken = this.#calls.take(owner, 1);
    if (!isTaken) this.#onRefused("calls", owner);
    return isTaken;
  }

  endCall(owner: string): void {
    this.#calls.give(owner, 1);
  }

  /** For a connection: bytes of half-sent requests count for it, for its owner and for the whole server. */
  arrivalOf(owner: string): Budget {
    const all = this.#budget(this.#arrival, owner, "arrival-bytes");
    let left = MESSAGES_IN_ARRIVAL * this.#limits.maxMessageBytes;
    return {
      take(bytes) {
        if (bytes > left || !all.take(bytes)) return false;
        left -= bytes;
        return true;
      },
      give(bytes) {
        left += bytes;
        all.give(bytes);
      },
    };
  }

  /** Bytes of answers that the owner has not read, on all its connections. */
  answersOf(owner: string): Budget {
    return this.#budget(this.#answers, owner, "answer-bytes");
  }

  /** Descriptors that the owner has passed and no call has taken, on all its connections. */
  descriptorsOf(owner: string): Budget {
    return this.#budget(this.#descriptors, owner, "descriptors");
  }

  /** Resolves when a request of the owner may be decoded. @throws the signal's reason. */
  async admit(owner: string, request: Undecoded, signal: AbortSignal): Promise<Admitted> {
    return await this.#decoding.admit(owner, request, signal);
  }

  #budget(shares: Shares, owner: string, kind: LimitKind): Budget {
    return {
      take: (amount) => {
        const isTaken = shares.take(owner, amount);
        if (!isTaken) this.#onRefused(kind, owner);
        return isTaken;
      },
      give: (amount) => shares.give(owner, amount),
    };
  }

  #addTo(connections: OwnedConnections, kind: LimitKind, connection: OwnedConnection): boolean {
    const isTaken = connections.add(connection);
    if (!isTaken) this.#onRefused(kind, connection.owner);
    return isTaken;
  }
}
