import { guarded, type Timer } from "../async/index.ts";
import { HELD_FDS_LIMIT } from "../kernel/index.ts";
import { type Connection, openConnection } from "./connection.ts";
import type { Undecoded } from "./held-requests.ts";
import type { OwnedConnection } from "./owned-connections.ts";
import type { PeerLimits } from "./peer-limits.ts";
import type { RpcLimits } from "./rpc-limits.ts";
import { type ServerCall, type ServerCallContext, serveCall } from "./server-call.ts";
import { RpcError } from "./status.ts";
import type { ServerConnection, ServerStream } from "./transport.ts";

/** What the connections of one server share. */
export interface ServedContext extends Pick<ServerCallContext, "handlers" | "clock" | "log"> {
  readonly limits: RpcLimits;
  readonly owners: PeerLimits;
}

/** From the end of a connection's last call to its end, where the peer does not close it. */
const LINGER_MS = 1000;

/**
 * Calls of one connection that are refused and not over: each takes memory until its stream has closed. All calls of a node are on the
 * manager's connection, so that one is not ended for them.
 */
const MOST_REFUSED = 64;

/** One connection with its calls, from the moment its peer is known. */
export class ServedConnection implements OwnedConnection {
  readonly owner: string;
  readonly connection: Connection;
  readonly calls = new Set<ServerCall>();
  /** Resolves when it has ended. */
  readonly closed: Promise<void>;
  readonly #transport: ServerConnection;
  readonly #context: ServedContext;
  readonly #callContext: ServerCallContext;
  readonly #expiry: Timer | undefined;
  #linger: Timer | undefined;
  #refused = 0;
  #callsAtOnce: number;
  idleSinceMs: number;

  constructor(transport: ServerConnection, context: ServedContext, mayRenew: () => boolean) {
    const { owners, limits, handlers, clock, log } = context;
    this.#transport = transport;
    this.#callsAtOnce = owners.callsAtOnce(transport.peer?.spiffeId ?? "");
    this.#context = context;
    this.owner = transport.peer?.spiffeId ?? "";
    this.connection = openConnection(transport, () => mayRenew() && this.sayFarewell());
    const budget = owners.arrivalOf(this.owner);
    const admit = (request: Undecoded, signal: AbortSignal) => owners.admit(this.owner, request, signal);
    const answers = owners.answersOf(this.owner);
    const { maxMessageBytes } = limits;
    const { connection } = this;
    this.#callContext = { connection, handlers, maxMessageBytes, budget, answers, admit, clock, log };
    transport.fds?.holdAtMost(HELD_FDS_LIMIT, owners.descriptorsOf(this.owner));
    this.idleSinceMs = clock.monotonicMs();
    this.#expiry = this.#startExpiry();
    const { promise, resolve } = Promise.withResolvers<void>();
    this.closed = promise;
    const closed = () => {
      this.#expiry?.cancel();
      this.#linger?.cancel();
      owners.remove(this);
      resolve();
      log.debug("rpc-connection-closed", { connection: this.connection.id, remote: transport.remote });
    };
    transport.closed.addEventListener("abort", guarded("abort", closed, closed), { once: true });
    const leave = () => this.#leave();
    transport.farewell.addEventListener("abort", guarded("abort", leave, leave), { once: true });
  }

  /** Nothing would be lost with it: it carries no call. */
  get isIdle(): boolean {
    return this.calls.size === 0;
  }

  /** Ends it now. */
  end(): void {
    this.#transport.cut();
  }

  /** The peer begins no further call here. */
  sayFarewell(): true {
    this.#transport.sayFarewell();
    return true;
  }

  /** Answers a call that has arrived. */
  serve(stream: ServerStream): void {
    const { owners, clock } = this.#context;
    this.#takeMoreOfManager();
    const isTaken = owners.beginCall(this.owner);
    const full = "Cannot take a call: the peer, or all peers, have too many under way; wait for some to end";
    const call = serveCall(stream, this.#callContext, isTaken ? undefined : new RpcError("RESOURCE_EXHAUSTED", full));
    this.calls.add(call);
    if (!isTaken) this.#refused += 1;
    if (this.#refused > MOST_REFUSED && !owners.isManager(this.owner)) this.end();
    void call.done.then(() => {
      this.calls.delete(call);
      if (isTaken) owners.endCall(this.owner);
      else this.#refused -= 1;
      this.idleSinceMs = clock.monotonicMs();
      this.#leave();
    });
  }

  /** It may have come before it was known as the manager. */
  #takeMoreOfManager(): void {
    const callsAtOnce = this.#context.owners.callsAtOnce(this.owner);
    if (callsAtOnce <= this.#callsAtOnce) return;
    this.#callsAtOnce = callsAtOnce;
    this.#transport.takeAtOnce(callsAtOnce);
  }

  /** A peer whose certificate has ended keeps its calls; for the next ones it must come back with one that is valid. */
  #startExpiry(): Timer | undefined {
    const { clock, log } = this.#context;
    const { id, peer } = this.connection;
    if (peer === undefined) return undefined;
    const expired = () => {
      log.debug("rpc-peer-expired", { connection: id, peer: peer.spiffeId });
      this.sayFarewell();
    };
    const end = () => this.end();
    return clock.after(peer.notAfterMs - clock.now(), guarded("timer", expired, end));
  }

  /** After the farewell and the last call the peer has time to close, and to read what is on its way; some would never do it. */
  #leave(): void {
    const end = () => this.end();
    if (this.#transport.farewell.aborted && this.isIdle)
      this.#linger ??= this.#context.clock.after(LINGER_MS, guarded("timer", end, end));
  }
}
