import { lstatSync, mkdirSync, statSync } from "node:fs";
import { createServer, type Socket } from "node:net";
import { dirname } from "node:path";
import { guarded } from "../../async/index.ts";
import { Fd, KernelError, listenUnix } from "../../kernel/index.ts";
import { RpcError } from "../status.ts";
import { parseTarget } from "../target.ts";
import type { Listener } from "../transport.ts";
import { type RawStream, rawFromTcp, rawFromUnix } from "./raw-stream.ts";

interface SocketOptions {
  readonly url: string;
  /** Permissions of a unix socket; folders that are made for it get the same, with search where there is read. */
  readonly socketMode: number;
  onStream(raw: RawStream): void;
  /** A connection could not be accepted, for example because descriptors have run out. */
  onError(error: Error): void;
}

/**
 * Listens on `unix:///path` or `tcp://host:port`. The socket file of a server that is gone is replaced; one that another process
 * listens on, or a file that is no socket, is left alone.
 * @throws {RpcError} UNAVAILABLE with the reason; INVALID_ARGUMENT when it is no address.
 */
export async function listenOnSocket(options: SocketOptions): Promise<Listener> {
  const target = parseTarget(options.url);
  try {
    if (target.kind === "tcp") return await listenTcp(target, options);
    return listenOnPath(target.path, options);
  } catch (error) {
    const isTaken = error instanceof KernelError && error.code === "EADDRINUSE";
    const why = isTaken ? "another process listens there" : (error as Error).message;
    throw new RpcError("UNAVAILABLE", `Cannot listen on ${options.url}: ${why}`, { cause: error });
  }
}

function listenOnPath(path: string, { socketMode, onStream, onError }: SocketOptions): Listener {
  mkdirSync(dirname(path), { recursive: true, mode: socketMode | ((socketMode & 0o444) >> 2) });
  const found = lstatSync(path, { throwIfNoEntry: false });
  if (found !== undefined && !found.isSocket()) throw new Error("a file that is no socket is in the way; remove it");
  const listener = listenUnix(path, {
    mode: socketMode,
    onStream: (stream) => onStream(rawFromUnix(stream, path)),
    onError,
  });
  return { url: `unix://${path}`, openSocket: () => Fd.ofPath(path), close: () => listener.close() };
}

function listenTcp(where: { readonly host: string; readonly port: number }, options: SocketOptions): Promise<Listener> {
  return new Promise((resolve, reject) => {
    const take = (socket: Socket) => options.onStream(rawFromTcp(socket));
    const server = createServer(guarded("tcp", take, (_error, socket) => void socket.destroy()));
    server.once("error", reject);
    const broke = (error: Error) => {
      server.close();
      reject(error);
    };
    const listens = () => {
      server.off("error", reject);
      server.on("error", guarded("tcp", options.onError));
      const address = server.address();
      const url = typeof address === "object" && address !== null ? tcpUrl(address.address, address.port) : options.url;
      const openSocket = () => {
        throw new Error(`Cannot open the socket of ${url}: it has no path`);
      };
      resolve({ url, openSocket, close: () => server.close() });
    };
    server.listen({ host: where.host, port: where.port }, guarded("tcp", listens, broke));
  });
}

function tcpUrl(host: string, port: number): string {
  return `tcp://${host.includes(":") ? `[${host}]` : host}:${port}`;
}

/**
 * Names what a target leads to now. A path is only a name: `/proc/self/fd/7` is another socket tomorrow, and a server that
 * starts again makes a new one under the old path. Two names of one socket are one.
 */
export function socketIdentity(url: string): string {
  const target = parseTarget(url);
  if (target.kind === "tcp") return url;
  try {
    const found = statSync(target.path, { bigint: true });
    return `unix-inode:${found.dev}/${found.ino}`;
  } catch {
    return url; // the dial says what is wrong with it
  }
}
