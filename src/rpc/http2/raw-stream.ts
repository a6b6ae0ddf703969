import { createConnection, type Socket } from "node:net";
import type { Duplex } from "node:stream";
import { type Clock, guarded } from "../../async/index.ts";
import { connectUnix, KernelError, type PassedFds, type UnixStream } from "../../kernel/index.ts";
import type { Target } from "../target.ts";

/** A connected byte stream, below TLS. */
export interface RawStream {
  readonly stream: Duplex;
  /** Undefined where no descriptor can travel. */
  readonly fds: PassedFds | undefined;
  /** The other end, for logs. */
  readonly remote: string;
  /** What it comes from, by which floods are told from others. Processes of other PID namespaces are one, as the kernel does not name them. */
  readonly source: string;
}

/** How long a TCP peer may be silent before the kernel probes whether it is still there. */
const TCP_KEEP_ALIVE_MS = 15_000;
/** Pause between tries while the listener of a unix socket has no room for one more. */
const BACKLOG_PAUSE_MS = 10;

/** @throws the system's error (ECONNREFUSED, ENOENT, …) or the signal's reason. */
export async function dialRaw(target: Target, clock: Clock, signal: AbortSignal): Promise<RawStream> {
  if (target.kind === "tcp") return await dialTcp(target.host, target.port, signal);
  for (;;) {
    try {
      return rawFromUnix(connectUnix(target.path), target.path);
    } catch (error) {
      if (!(error instanceof KernelError && error.code === "EAGAIN")) throw error;
      await clock.sleep(BACKLOG_PAUSE_MS, signal);
    }
  }
}

function dialTcp(host: string, port: number, signal: AbortSignal): Promise<RawStream> {
  return new Promise((resolve, reject) => {
    const socket = createConnection({ host, port });
    const aborted = guarded("abort", () => void socket.destroy(signal.reason));
    const closed = guarded("tcp", () => signal.removeEventListener("abort", aborted));
    const connected = () => {
      signal.removeEventListener("abort", aborted);
      socket.off("error", reject);
      resolve(rawFromTcp(socket));
    };
    if (signal.aborted) aborted();
    signal.addEventListener("abort", aborted, { once: true });
    socket.once("error", reject);
    socket.once("close", closed);
    const broke = (error: Error) => void socket.destroy(error);
    socket.once("connect", guarded("tcp", connected, broke));
  });
}

/** A connected TCP socket as a raw stream. */
export function rawFromTcp(socket: Socket): RawStream {
  socket.setNoDelay(true);
  socket.setKeepAlive(true, TCP_KEEP_ALIVE_MS);
  socket.on("error", () => {}); // its close is enough
  const { remoteAddress, remotePort } = socket;
  return { stream: socket, fds: undefined, remote: `tcp://${remoteAddress}:${remotePort}`, source: `${remoteAddress}` };
}

/** A connected unix socket as a raw stream. */
export function rawFromUnix(stream: UnixStream, path: string): RawStream {
  stream.on("error", () => {}); // its close is enough
  const source = `pid ${stream.peerPid ?? "unknown"}`;
  return { stream, fds: stream.fds, remote: `unix://${path} (${source})`, source };
}
