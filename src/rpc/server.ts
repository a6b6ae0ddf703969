import {
  type IncomingHttpHeaders,
  performServerHandshake,
  type ServerHttp2Session,
  type ServerHttp2Stream,
} from "node:http2";
import type { Duplex } from "node:stream";
import { type Clock, guarded, startDeadline, type Timer } from "../async/index.ts";
import { HELD_FDS_LIMIT, UNKNOWN_PEER_FDS_LIMIT } from "../kernel/index.ts";
import type { Log } from "../telemetry/index.ts";
import { type Connection, cut, openConnection } from "./connection.ts";
import { firstRecord } from "./first-record.ts";
import type { RpcHandler } from "./handler.ts";
import { Handshakes } from "./handshakes.ts";
import type { RpcHealth } from "./health.ts";
import { defaultLimits, type RpcLimits, SESSION_WINDOW_BYTES, STREAM_WINDOW_BYTES, sessionMemoryMb } from "./limits.ts";
import { listen } from "./listen.ts";
import { type OwnedConnection, Owners } from "./owners.ts";
import type { RawStream } from "./raw-stream.ts";
import { Renewals } from "./renewals.ts";
import { type ServerCall, serveCall } from "./server-call.ts";
import { RpcError } from "./status.ts";
import { acceptTls, type TlsIdentity } from "./tls.ts";

export interface ServeOptions {
  /** `unix:///path` or `tcp://host:port`; port 0 lets the system choose. */
  readonly url: string;
  /** Without it the server speaks plain HTTP/2 to anybody who can connect. */
  readonly tls?: TlsIdentity;
  readonly handlers: readonly RpcHandler[];
  /** Serves grpc.health.v1 too. */
  readonly health?: RpcHealth;
  /** Permissions of a unix socket; 0o770 unless told. */
  readonly socketMode?: number;
  readonly log: Log;
  readonly clock: Clock;
  readonly limits?: Partial<RpcLimits>;
}

/** A server that listens. */
export interface RpcServer {
  /** The address that peers can dial, with the real port. */
  readonly url: string;
  /** Connections whose handshake is done. */
  readonly connectionCount: number;
  /**
   * Takes no new call, lets unary calls end within `graceMs`, then ends streams with UNAVAILABLE and closes every
   * connection. May be called again with a shorter time.
   */
  stop(graceMs: number): Promise<void>;
}

/**
 * Serves gRPC on a unix or TCP socket.
 * @throws {RpcError} UNAVAILABLE when the address cannot be listened on, INVALID_ARGUMENT when it is no address.
 */
export async function serveRpc(options: ServeOptions): Promise<RpcServer> {
  const server = new Server(options);
  const socketMode = options.socketMode ?? 0o770;
  const listener = await listen({
    url: options.url,
    socketMode,
    onStream: (raw) => void server.accept(raw),
    onError: (error) => options.log.warn("rpc-accept-failed", { url: options.url, error: error.message }),
  });
  return {
    url: listener.url,
    get connectionCount() {
      return server.connectionCount;
    },
    async stop(graceMs) {
      listener.close();
      await server.stop(graceMs);
    },
  };
}

/** A server for streams that somebody else accepts. */
export interface StreamServer {
  /** Takes a stream over; it ends with its connection. Never throws. */
  accept(stream: Duplex, remote: string): void;
  stop(graceMs: number): Promise<void>;
}

/** Serves gRPC on streams that are handed in. */
export function serveStreams(options: Omit<ServeOptions, "url" | "socketMode">): StreamServer {
  const server = new Server(options);
  return {
    accept: (stream, remote) => void server.accept({ stream, fds: undefined, remote }),
    stop: (graceMs) => server.stop(graceMs),
  };
}

/** A connection that is past its handshake. */
interface Open extends OwnedConnection {
  readonly session: ServerHttp2Session;
  readonly raw: Duplex;
  readonly calls: Set<ServerCall>;
}

function openOf(session: ServerHttp2Session, raw: Duplex, owner = ""): Open {
  const calls = new Set<ServerCall>();
  return {
    session,
    raw,
    calls,
    owner,
    get isIdle() {
      return calls.size === 0;
    },
    end: () => cut(session, raw),
  };
}

class Server {
  readonly #options: Omit<ServeOptions, "url">;
  readonly #limits: RpcLimits;
  readonly #handlers: ReadonlyMap<string, RpcHandler>;
  readonly #handshakes: Handshakes;
  readonly #owners: Owners;
  readonly #open = new Set<Open>();
  readonly #renewals = new Renewals();
  readonly #stopWatching: (() => void) | undefined;
  #rotations = 0;
  #isStopping = false;
  #isFull = false;
  #tellsAgainAtMs = 0;

  constructor(options: Omit<ServeOptions, "url">) {
    this.#options = options;
    this.#limits = { ...defaultLimits, ...options.limits };
    this.#handshakes = new Handshakes(this.#limits.maxHandshakes);
    this.#owners = new Owners(this.#limits);
    const handlers = [...options.handlers, ...(options.health?.handlers() ?? [])];
    this.#handlers = new Map(handlers.map((handler) => [handler.path, handler]));
    this.#stopWatching = options.tls?.onRotate(() => this.#rotated());
  }

  get connectionCount(): number {
    return this.#open.size;
  }

  /** Takes a connection through its handshake. Never throws. */
  async accept(raw: RawStream): Promise<void> {
    const { clock } = this.#options;
    const { handshakeTimeoutMs } = this.#limits;
    raw.stream.on("error", () => {}); // its close is what counts
    if (this.#isStopping) {
      raw.stream.destroy();
      return;
    }
    this.#handshakes.add(raw.stream);
    const forget = guarded("tls", () => void this.#handshakes.delete(raw.stream));
    raw.stream.once("close", forget);
    const deadline = startDeadline(clock, handshakeTimeoutMs, { what: `handshake with ${raw.remote}` });
    try {
      await this.#handshake(raw, deadline.signal);
    } catch (error) {
      this.#tellHandshakeFailure(raw.remote, error as Error);
      raw.stream.destroy();
    } finally {
      deadline.end();
      this.#handshakes.delete(raw.stream);
    }
  }

  /** An operator must see that a peer is refused; a peer must not be able to fill the log. */
  #tellHandshakeFailure(remote: string, error: Error): void {
    const { clock, log } = this.#options;
    const isTold = clock.monotonicMs() < this.#tellsAgainAtMs;
    log[isTold ? "debug" : "warn"]("rpc-handshake-failed", { remote, error: error.message });
    if (!isTold) this.#tellsAgainAtMs = clock.monotonicMs() + HANDSHAKE_FAILURE_PAUSE_MS;
  }

  async #handshake(raw: RawStream, signal: AbortSignal): Promise<void> {
    const { tls, log } = this.#options;
    if (tls) raw.fds?.holdAtMost(UNKNOWN_PEER_FDS_LIMIT);
    if (tls && raw.fds) await firstRecord(raw.stream, signal); // half-open connections cost no TLS
    this.#handshakes.spoke(raw.stream);
    const rotations = this.#rotations;
    const secure = tls && (await acceptTls(raw.stream, tls, signal));
    raw.fds?.holdAtMost(HELD_FDS_LIMIT);
    const mayRenew = this.#renewals.opened(secure?.peer);
    const { connection, ended } = openConnection({
      peer: secure?.peer,
      shown: secure?.shown,
      fds: raw.fds,
      remote: raw.remote,
      renew: () => mayRenew() && this.#sayGoodbye(open),
    });
    const session = performServerHandshake(secure?.socket ?? raw.stream, {
      settings: { maxConcurrentStreams: this.#limits.maxConcurrentCalls, initialWindowSize: STREAM_WINDOW_BYTES },
      maxSessionMemory: sessionMemoryMb(this.#limits),
    });
    const open = openOf(session, raw.stream, secure?.peer.spiffeId);
    const closed = () => {
      expiry?.cancel();
      this.#open.delete(open);
      this.#owners.remove(open);
      raw.stream.destroy();
      ended(`the connection with ${raw.remote} was closed`);
      log.debug("rpc-connection-closed", { connection: connection.id, remote: raw.remote });
    };
    const broke = () => {
      cut(session, raw.stream);
      closed();
    };
    const failed = (error: Error) => log.debug("rpc-connection-error", { remote: raw.remote, error: error.message });
    session.on("error", guarded("http2-session", failed, broke));
    const expiry = this.#goAwayAtExpiry(open, connection);
    session.on(
      "goaway",
      guarded("http2-session", () => this.#leave(open), broke),
    );
    session.once("close", guarded("http2-session", closed, broke));
    if (!this.#takes(open, raw.remote)) return broke();
    this.#serve(open, connection);
    session.setLocalWindowSize(SESSION_WINDOW_BYTES);
    await firstSettings(session, signal);
    if (session.destroyed || this.#isStopping) return cut(session, raw.stream);
    this.#open.add(open);
    if (rotations !== this.#rotations) this.#sayGoodbye(open);
    log.debug("rpc-connection-open", {
      connection: connection.id,
      remote: raw.remote,
      peer: connection.peer?.spiffeId,
    });
  }

  /** Whether there is room for a connection of this owner. */
  #takes(open: Open, remote: string): boolean {
    const { log } = this.#options;
    const hasRoom = this.#owners.add(open);
    // Told once until there is room again: a flood must not become a flood of lines.
    if (!hasRoom && !this.#isFull)
      log.warn("rpc-connections-refused", { remote, peer: open.owner, open: this.#open.size });
    this.#isFull = !hasRoom;
    return hasRoom;
  }

  #serve(open: Open, connection: Connection): void {
    const { clock, log } = this.#options;
    const { maxMessageBytes, maxCallsPerOwner } = this.#limits;
    const { owner } = open;
    const budget = this.#owners.budgetOf(owner);
    const context = { connection, handlers: this.#handlers, maxMessageBytes, budget, clock, log };
    const refusal = new RpcError(
      "RESOURCE_EXHAUSTED",
      `Cannot take a call: the peer has ${maxCallsPerOwner} under way`,
    );
    const begun = (
      stream: ServerHttp2Stream,
      headers: IncomingHttpHeaders,
      _flags: number,
      rawHeaders: readonly string[],
    ) => {
      const isTaken = this.#owners.beginCall(owner);
      const call = serveCall(stream, headers, rawHeaders, isTaken ? context : { ...context, refusal });
      open.calls.add(call);
      void call.done.then(() => {
        open.calls.delete(call);
        if (isTaken) this.#owners.endCall(owner);
        this.#leave(open);
      });
    };
    const broke = () => cut(open.session, open.raw);
    open.session.on("stream", guarded("http2-stream", begun, broke));
  }

  /** A peer whose certificate has ended keeps its calls; for the next ones it must come back with one that is valid. */
  #goAwayAtExpiry(open: Open, { id, peer }: Connection): Timer | undefined {
    const { clock, log } = this.#options;
    if (peer === undefined) return undefined;
    const expired = () => {
      log.debug("rpc-peer-expired", { connection: id, peer: peer.spiffeId });
      this.#sayGoodbye(open);
    };
    return clock.after(
      peer.notAfterMs - clock.now(),
      guarded("timer", expired, () => cut(open.session, open.raw)),
    );
  }

  /**
   * Our certificate is new. What we issue over a connection ends with the one that was shown there, so peers are to come
   * back and see the new one. Their calls under way go on.
   */
  #rotated(): void {
    this.#rotations += 1;
    for (const open of this.#open) this.#sayGoodbye(open);
  }

  /** GOAWAY: the peer begins no further call here. */
  #sayGoodbye(open: Open): true {
    open.session.close();
    this.#leave(open);
    return true;
  }

  /** After GOAWAY and the last call the peer has time to close, and to read what is on its way; some would never do it. */
  #leave({ session, raw, calls }: Open): void {
    const end = guarded("timer", () => void raw.destroy());
    if (session.closed && calls.size === 0) this.#options.clock.after(LINGER_MS, end);
  }

  async stop(graceMs: number): Promise<void> {
    const { clock, health } = this.#options;
    this.#isStopping = true;
    this.#stopWatching?.();
    health?.stopAll();
    this.#handshakes.endAll();
    for (const { session } of this.#open) session.close(); // GOAWAY: the peer begins no further call here
    const calls = () => [...this.#open].flatMap((open) => [...open.calls]);
    const unary = calls().filter((call) => !call.isStreaming);
    const bound = new AbortController();
    await Promise.race([
      Promise.all(unary.map((call) => call.done)),
      clock.sleep(graceMs, bound.signal).catch(() => {}),
    ]);
    bound.abort();
    const left = calls();
    for (const call of left) call.end(new RpcError("UNAVAILABLE", "the server is stopping"));
    await Promise.race([Promise.all(left.map((call) => call.done)), clock.sleep(Math.min(graceMs, FAREWELL_MS))]);
    const closed = [...this.#open].map(({ session }) => new Promise<void>((resolve) => session.once("close", resolve)));
    for (const { session, raw } of this.#open) cut(session, raw);
    await Promise.all(closed);
  }
}

/** From the end of a connection's last call to its end, where the peer does not close it. */
const LINGER_MS = 1000;

/** At most one failed handshake in this time is told at a level that is on by default. */
const HANDSHAKE_FAILURE_PAUSE_MS = 10_000;

/** Time for the last statuses to leave before connections are cut. */
const FAREWELL_MS = 200;

/** The peer has spoken HTTP/2. */
function firstSettings(session: ServerHttp2Session, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const closed = () => reject(new Error("the peer closed the connection before its HTTP/2 settings"));
    session.once(
      "remoteSettings",
      guarded("http2-session", () => resolve(), reject),
    );
    session.once("close", guarded("http2-session", closed, reject));
    const aborted = guarded("abort", () => {
      reject(signal.reason);
      session.destroy();
    });
    signal.addEventListener("abort", aborted);
  });
}
