import { createConnection, type Socket } from "node:net";
import type { Duplex } from "node:stream";
import type { Target } from "./target.ts";

export interface PassedFds {
  send(fd: Fd): void;
}
export interface Fd {
  readonly number: number;
}

/** A connected byte stream, below TLS. */
export interface RawStream {
  readonly stream: Duplex;
  readonly fds: PassedFds | undefined;
  readonly remote: string;
}

/** How long a TCP peer may be silent before the kernel asks whether it is still there. */
const TCP_KEEP_ALIVE_MS = 15_000;

/** @throws the system's error (ECONNREFUSED, ENOENT, …) or the signal's reason. */
export async function dialRaw(target: Target, signal: AbortSignal): Promise<RawStream> {
  if (target.kind === "unix") return await dialTcp({ path: target.path }, signal);
  return await dialTcp({ host: target.host, port: target.port }, signal);
}

function dialTcp(where: { path: string } | { host: string; port: number }, signal: AbortSignal): Promise<RawStream> {
  return new Promise((resolve, reject) => {
    const socket = createConnection(where);
    const aborted = () => socket.destroy(signal.reason);
    if (signal.aborted) aborted();
    signal.addEventListener("abort", aborted, { once: true });
    socket.once("error", reject);
    socket.once("connect", () => {
      signal.removeEventListener("abort", aborted);
      socket.off("error", reject);
      resolve(rawFromSocket(socket));
    });
  });
}

/** A connected net socket as a raw stream. */
export function rawFromSocket(socket: Socket): RawStream {
  socket.setNoDelay(true);
  socket.setKeepAlive(true, TCP_KEEP_ALIVE_MS);
  socket.on("error", () => {}); // its close tells everybody
  return { stream: socket, fds: undefined, remote: `${socket.remoteAddress ?? "unix"}` };
}
