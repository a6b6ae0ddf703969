import { createServer, type Socket } from "node:net";
import type { Duplex } from "node:stream";
import { type Clock, guarded } from "../async/index.ts";
import type { Log } from "../telemetry/index.ts";
import { type ListenAddress, listening } from "./loopback.ts";

/** Where a connection goes. */
interface Doors {
  /** HTTP/1.1 */
  http(stream: Duplex): void;
  /** HTTP/2 from its first byte, as gRPC speaks it without TLS. */
  grpc(stream: Duplex, remote: string): void;
  /**
   * Given where other nodes can connect: admits whom it trusts, before anything that a client says is read.
   * @throws with the reason when it does not.
   */
  readonly admit: ((stream: Duplex) => Promise<Duplex>) | undefined;
}

/** Where it listens really. */
interface AdminListener {
  /** `127.0.0.1:9871` */
  readonly address: string;
  close(): void;
}

const MOST_CONNECTIONS = 64;
/** A peer that connects and says nothing is let go. */
const SILENCE_MS = 5000;
/** How an HTTP/2 client begins without TLS (RFC 9113, 3.4); no method of HTTP/1.1 does. */
const HTTP2_BEGINS = "PRI";

/**
 * Takes connections and leads each to its door.
 * @throws {AdminError} cannot-listen.
 */
export async function openListener(
  where: ListenAddress,
  doors: Doors,
  { what, clock, log }: { readonly what: string; readonly clock: Clock; readonly log: Log },
): Promise<AdminListener> {
  const open = new Set<Socket>();
  const take = (socket: Socket) => {
    open.add(socket);
    const closed = guarded("admin-socket", () => void open.delete(socket));
    socket.once("close", closed);
    socket.on("error", () => {}); // its close is what counts
    lead(socket, doors, clock).catch((error: unknown) => {
      log.warn("admin-connection-refused", { remote: remoteOf(socket), error: (error as Error).message });
      socket.destroy();
    });
  };
  const server = createServer(guarded("admin-socket", take, (_error, socket) => void socket.destroy()));
  server.maxConnections = MOST_CONNECTIONS;
  const address = await listening(server, where, what);
  const failed = (err: Error) => log.warn("admin-listener-failed", { err });
  server.on("error", guarded("admin-socket", failed));
  return {
    address,
    close() {
      server.close();
      for (const socket of open) socket.destroy();
    },
  };
}

async function lead(socket: Socket, { http, grpc, admit }: Doors, clock: Clock): Promise<void> {
  const end = guarded("admin-socket", () => void socket.destroy());
  const silence = clock.after(SILENCE_MS, end);
  const over = guarded("admin-socket", () => silence.cancel());
  socket.once("close", over);
  if (admit) {
    http(await admit(socket));
    silence.cancel();
    return;
  }
  const begins = (first: Buffer) => {
    socket.pause();
    socket.unshift(first);
    silence.cancel();
    if (first.toString("latin1", 0, HTTP2_BEGINS.length) === HTTP2_BEGINS) return grpc(socket, remoteOf(socket));
    http(socket);
    socket.resume(); // HTTP/1.1 waits for data; HTTP/2 fetches what is there
  };
  socket.once("data", guarded("admin-socket", begins, end));
}

function remoteOf({ remoteAddress, remotePort }: Socket): string {
  return `tcp://${remoteAddress}:${remotePort}`;
}
