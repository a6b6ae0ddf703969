import {
  type IncomingHttpHeaders,
  performServerHandshake,
  type ServerHttp2Session,
  type ServerHttp2Stream,
} from "node:http2";
import { guarded, startDeadline } from "../../async/index.ts";
import { UNKNOWN_PEER_FDS_LIMIT } from "../../kernel/index.ts";
import { rareWarnings } from "../../telemetry/index.ts";
import type { AcceptOptions } from "../transport.ts";
import { firstRecord } from "./first-record.ts";
import { Handshakes } from "./handshakes.ts";
import type { RawStream } from "./raw-stream.ts";
import { openServerStream } from "./server-stream.ts";
import { SessionConnection } from "./session.ts";
import { acceptTls } from "./tls.ts";
import { SESSION_WINDOW_BYTES, STREAM_WINDOW_BYTES, sessionMemoryMb } from "./windows.ts";

/** Takes accepted streams through TLS and the begin of HTTP/2, a bounded number at once. */
export class Acceptor {
  readonly #options: AcceptOptions;
  readonly #handshakes: Handshakes;
  readonly #warn: ReturnType<typeof rareWarnings>;
  #isClosed = false;

  constructor(options: AcceptOptions) {
    this.#options = options;
    this.#warn = rareWarnings(options.log, options.clock);
    this.#handshakes = new Handshakes(options.limits.maxHandshakes);
  }

  /** Takes a connection through its handshake. Never throws. */
  async accept(raw: RawStream): Promise<void> {
    const { clock, limits } = this.#options;
    raw.stream.on("error", () => {}); // its close is what counts
    if (this.#isClosed) {
      raw.stream.destroy();
      return;
    }
    this.#handshakes.add(raw);
    const forget = guarded("tls", () => void this.#handshakes.delete(raw.stream));
    raw.stream.once("close", forget);
    const deadline = startDeadline(clock, limits.handshakeTimeoutMs, { what: `handshake with ${raw.remote}` });
    try {
      await this.#handshake(raw, deadline.signal);
    } catch (error) {
      this.#warn("rpc-handshake-failed", { remote: raw.remote, error: (error as Error).message });
      raw.stream.destroy();
    } finally {
      deadline.end();
      this.#handshakes.delete(raw.stream);
    }
  }

  /** Ends the handshakes under way, and takes no further stream. */
  close(): void {
    this.#isClosed = true;
    this.#handshakes.endAll();
  }

  async #handshake(raw: RawStream, signal: AbortSignal): Promise<void> {
    const { tls, limits, callsAtOnce, unknownDescriptors, log } = this.#options;
    if (tls) raw.fds?.holdAtMost(UNKNOWN_PEER_FDS_LIMIT, unknownDescriptors);
    if (tls && raw.fds) await firstRecord(raw.stream, signal); // half-open connections cost no TLS
    this.#handshakes.spoke(raw.stream);
    const secure = tls && (await acceptTls(raw.stream, tls, signal));
    const session = performServerHandshake(secure?.socket ?? raw.stream, {
      // What is begun beyond it nghttp2 refuses, before it takes any memory of V8's.
      settings: {
        maxConcurrentStreams: callsAtOnce(secure?.peer.spiffeId ?? ""),
        initialWindowSize: STREAM_WINDOW_BYTES,
      },
      maxSessionMemory: sessionMemoryMb(limits),
    });
    const connection = new SessionConnection(session, raw, secure);
    connection.follow("error", (error) =>
      log.debug("rpc-connection-error", { remote: raw.remote, error: error.message }),
    );
    const taker = this.#options.connected(connection);
    if (!taker) return connection.cut();
    const begun = (
      stream: ServerHttp2Stream,
      headers: IncomingHttpHeaders,
      _flags: number,
      rawHeaders: readonly string[],
    ) => taker.call(openServerStream(stream, headers, rawHeaders));
    session.on(
      "stream",
      guarded("http2-stream", begun, () => connection.cut()),
    );
    session.setLocalWindowSize(SESSION_WINDOW_BYTES);
    await firstSettings(session, signal);
    if (session.destroyed || this.#isClosed) connection.cut();
    else taker.opened();
  }
}

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
