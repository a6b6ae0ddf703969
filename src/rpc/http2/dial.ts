import { type ClientHttp2Session, connect } from "node:http2";
import type { TLSSocket } from "node:tls";
import { guarded, startDeadline } from "../../async/index.ts";
import { HELD_FDS_LIMIT, KernelError, UNKNOWN_PEER_FDS_LIMIT } from "../../kernel/index.ts";
import type { RpcLimits } from "../rpc-limits.ts";
import { RpcError } from "../status.ts";
import { parseTarget, type Target } from "../target.ts";
import type { AnswerReader, ClientConnection, ClientStream, DialOptions, OutgoingCall } from "../transport.ts";
import { openClientStream } from "./client-stream.ts";
import { dialRaw, type RawStream } from "./raw-stream.ts";
import { connectByName } from "./server-tls.ts";
import { SessionConnection } from "./session.ts";
import { formatTimeout } from "./timeout.ts";
import { connectTls, type SecureStream } from "./tls.ts";
import { SESSION_WINDOW_BYTES, STREAM_WINDOW_BYTES, sessionMemoryMb } from "./windows.ts";

/**
 * Dials. TLS 1.3 lets a client believe that it is connected before the server has read its certificate; so a
 * connection counts only when the peer's HTTP/2 settings are there.
 * @throws {RpcError} UNAVAILABLE that names the step that failed and why; INVALID_ARGUMENT for what is no address.
 */
export async function dial(options: DialOptions): Promise<ClientConnection> {
  const target = parseTarget(options.target);
  const deadline = startDeadline(options.clock, options.timeoutMs, { what: "it", parent: options.signal });
  const step = { now: "connecting" };
  let raw: RawStream | undefined;
  try {
    raw = await dialRaw(target, options.clock, deadline.signal);
    step.now = "the TLS handshake";
    if (options.tls) raw.fds?.holdAtMost(UNKNOWN_PEER_FDS_LIMIT);
    const secure = options.tls && (await connectTls(raw.stream, options.tls, deadline.signal));
    const named = options.serverTls && (await connectByName(raw.stream, await options.serverTls(), deadline.signal));
    raw.fds?.holdAtMost(HELD_FDS_LIMIT);
    step.now = "waiting for the peer's HTTP/2 settings";
    const dialled = new DialledConnection(raw, { secure, named }, target, options.limits);
    await dialled.opened(deadline.signal);
    return dialled;
  } catch (error) {
    raw?.stream.destroy();
    options.signal.throwIfAborted();
    const cause = deadline.signal.aborted ? `${step.now} took longer than ${options.timeoutMs} ms` : reason(error);
    throw new RpcError("UNAVAILABLE", `Cannot connect to ${options.target}: ${cause}`, { cause: error });
  } finally {
    deadline.end();
  }
}

interface Tls {
  readonly secure: SecureStream | undefined;
  /** With a server that is known by its host. */
  readonly named: TLSSocket | undefined;
}

class DialledConnection extends SessionConnection implements ClientConnection {
  readonly #session: ClientHttp2Session;
  readonly #scheme: "http" | "https";
  readonly #authority: string;

  constructor(raw: RawStream, { secure, named }: Tls, target: Target, limits: RpcLimits) {
    const session = connect("http://localhost", {
      createConnection: () => secure?.socket ?? named ?? raw.stream,
      settings: { enablePush: false, initialWindowSize: STREAM_WINDOW_BYTES },
      maxSessionMemory: sessionMemoryMb(limits),
    });
    super(session, raw, secure);
    this.#session = session;
    this.#scheme = (secure ?? named) ? "https" : "http";
    // For unix sockets grpc-go and nghttp2 agree on this name only; a raw path is refused by nghttp2.
    this.#authority = target.kind === "unix" ? "localhost" : `${target.host}:${target.port}`;
    this.follow("connect", () => {
      // The event comes a turn later: the dialling may have been given up by then.
      if (!session.destroyed) session.setLocalWindowSize(SESSION_WINDOW_BYTES);
    });
  }

  /** The peer has spoken HTTP/2. */
  opened(signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      this.follow("remoteSettings", () => resolve());
      this.follow("close", () => {
        const guess = this.shown ? ": it may have refused our certificate" : ": it may want TLS";
        reject(new Error(`the peer closed the connection before its HTTP/2 settings${this.failure || guess}`));
      });
      const aborted = guarded("abort", () => this.#session.destroy());
      signal.addEventListener("abort", aborted, { once: true });
    });
  }

  call({ path, timeoutMs, metadata, request }: OutgoingCall, reader: AnswerReader): ClientStream {
    const headers = {
      ":method": "POST",
      ":scheme": this.#scheme,
      ":authority": this.#authority,
      ":path": path,
      te: "trailers",
      "content-type": "application/grpc",
      ...(timeoutMs === undefined ? {} : { "grpc-timeout": formatTimeout(timeoutMs) }),
      ...metadata,
    };
    return openClientStream(this.#session, headers, request, reader);
  }
}

/** The system's words without what was being done: the error says that already. */
function reason(error: unknown): string {
  if (error instanceof KernelError) return error.message.slice(`Cannot ${error.op}: `.length);
  return error instanceof Error ? error.message : String(error);
}
