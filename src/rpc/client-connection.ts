import { type ClientHttp2Session, connect } from "node:http2";
import { type Clock, guarded, startDeadline } from "../async/index.ts";
import { HELD_FDS_LIMIT, KernelError, UNKNOWN_PEER_FDS_LIMIT } from "../kernel/index.ts";
import { type Connection, openConnection, type TlsIdentity } from "./connection.ts";
import { dialRaw, type RawStream } from "./http2/raw-stream.ts";
import { SessionConnection } from "./http2/session.ts";
import { connectTls, type SecureStream } from "./http2/tls.ts";
import { SESSION_WINDOW_BYTES, STREAM_WINDOW_BYTES, sessionMemoryMb } from "./http2/windows.ts";
import type { RpcLimits } from "./limits.ts";
import { RpcError } from "./status.ts";
import { parseTarget, type Target } from "./target.ts";

export interface DialOptions {
  /** `unix:///path` or `tcp://host:port`. */
  readonly target: string;
  readonly tls: TlsIdentity | undefined;
  readonly clock: Clock;
  /** For connect, TLS and the first HTTP/2 settings together. */
  readonly timeoutMs: number;
  readonly limits: RpcLimits;
  /** Gives the dial up. */
  readonly signal: AbortSignal;
  /** See `Connection.renew`. */
  readonly renew: () => boolean;
}

/** A connection that we dialled and that can carry calls. */
export interface ClientConnection {
  readonly connection: Connection;
  readonly session: ClientHttp2Session;
  /** Ends it now, with all its calls. */
  cut(): void;
  /** `:scheme` and `:authority` of its calls. */
  readonly scheme: "http" | "https";
  readonly authority: string;
}

/**
 * Dials. TLS 1.3 lets a client believe that it is connected before the server has looked at its certificate; so a
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
    raw.fds?.holdAtMost(HELD_FDS_LIMIT);
    step.now = "waiting for the peer's HTTP/2 settings";
    return await startSession(raw, secure, {
      target,
      limits: options.limits,
      signal: deadline.signal,
      renew: options.renew,
    });
  } catch (error) {
    raw?.stream.destroy();
    options.signal.throwIfAborted();
    const cause = deadline.signal.aborted ? `${step.now} took longer than ${options.timeoutMs} ms` : reason(error);
    throw new RpcError("UNAVAILABLE", `Cannot connect to ${options.target}: ${cause}`, { cause: error });
  } finally {
    deadline.end();
  }
}

interface SessionOptions {
  readonly target: Target;
  readonly limits: RpcLimits;
  readonly signal: AbortSignal;
  readonly renew: () => boolean;
}

async function startSession(
  raw: RawStream,
  secure: SecureStream | undefined,
  { target, limits, signal, renew }: SessionOptions,
): Promise<ClientConnection> {
  const session = connect("http://localhost", {
    createConnection: () => secure?.socket ?? raw.stream,
    settings: { enablePush: false, initialWindowSize: STREAM_WINDOW_BYTES },
    maxSessionMemory: sessionMemoryMb(limits),
  });
  const followed = new SessionConnection(session, raw, secure);
  followed.follow("connect", () => {
    // The event comes a turn later: the dialling may have been given up by then.
    if (!session.destroyed) session.setLocalWindowSize(SESSION_WINDOW_BYTES);
  });
  await new Promise<void>((resolve, reject) => {
    followed.follow("remoteSettings", () => resolve());
    followed.follow("close", () => {
      const guess = secure ? ": it may have refused our certificate" : ": it may want TLS";
      reject(new Error(`the peer closed the connection before its HTTP/2 settings${followed.failure || guess}`));
    });
    const aborted = guarded("abort", () => session.destroy());
    signal.addEventListener("abort", aborted, { once: true });
  });
  // For unix sockets grpc-go and nghttp2 agree on this name only; a raw path is refused by nghttp2.
  const authority = target.kind === "unix" ? "localhost" : `${target.host}:${target.port}`;
  const connection = openConnection(followed, renew);
  return { connection, session, cut: () => followed.cut(), scheme: secure ? "https" : "http", authority };
}

/** The system's words without what was being done: the error says that already. */
function reason(error: unknown): string {
  if (error instanceof KernelError) return error.message.slice(`Cannot ${error.op}: `.length);
  return error instanceof Error ? error.message : String(error);
}
