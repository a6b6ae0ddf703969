import { chmodSync, lstatSync, mkdirSync, unlinkSync } from "node:fs";
import { createServer } from "node:net";
import { dirname } from "node:path";
import { dialRaw, type RawStream, rawFromSocket } from "./raw-stream.ts";
import { RpcError } from "./status.ts";
import { parseTarget } from "./target.ts";

/** A listening socket. */
export interface Listener {
  /** The real address: with the port that the system chose, where none was asked for. */
  readonly url: string;
  /** Takes no further connection, and removes the socket file if it is still ours. */
  close(): void;
}

export interface ListenOptions {
  readonly url: string;
  /** Permissions of a unix socket; folders that are made for it get the same, with search where there is read. */
  readonly socketMode: number;
  onStream(raw: RawStream): void;
}

/**
 * Listens on `unix:///path` or `tcp://host:port`. The socket file of a server that is gone is removed; one that somebody
 * listens on, or a file that is no socket, is left alone.
 * @throws {RpcError} UNAVAILABLE with the reason.
 */
export async function listen(options: ListenOptions): Promise<Listener> {
  const target = parseTarget(options.url);
  try {
    if (target.kind === "tcp") return await listenNet(target, options);
    mkdirSync(dirname(target.path), { recursive: true, mode: folderMode(options.socketMode) });
    await removeStale(target.path);
    const listener = await listenNet({ path: target.path }, options);
    chmodSync(target.path, options.socketMode);
    const { dev, ino } = lstatSync(target.path);
    return {
      url: `unix://${target.path}`,
      close() {
        removeIf(target.path, dev, ino);
        listener.close();
      },
    };
  } catch (error) {
    throw new RpcError("UNAVAILABLE", `Cannot listen on ${options.url}: ${(error as Error).message}`, { cause: error });
  }
}

function folderMode(socketMode: number): number {
  return socketMode | ((socketMode & 0o444) >> 2);
}

/** A socket file outlives its process. Only a refused connection tells that nobody listens there any more. */
async function removeStale(path: string): Promise<void> {
  const found = lstatSync(path, { throwIfNoEntry: false });
  if (found === undefined) return;
  if (!found.isSocket()) throw new Error("a file that is no socket is in the way; remove it");
  let code: string | undefined;
  try {
    const { stream } = await dialRaw({ kind: "unix", path }, AbortSignal.timeout(1000));
    stream.destroy();
  } catch (error) {
    code = (error as NodeJS.ErrnoException).code;
  }
  if (code !== "ECONNREFUSED") throw new Error(`another process listens there (${code ?? "it accepted a connection"})`);
  removeIf(path, found.dev, found.ino);
}

/** Another process may have put its own socket there since. */
function removeIf(path: string, dev: number, ino: number): void {
  const now = lstatSync(path, { throwIfNoEntry: false });
  if (now?.dev === dev && now.ino === ino) unlinkSync(path);
}

function listenNet(
  where: { path: string } | { host: string; port: number },
  options: ListenOptions,
): Promise<Listener> {
  return new Promise((resolve, reject) => {
    const server = createServer((socket) => options.onStream(rawFromSocket(socket)));
    server.once("error", reject);
    server.listen(where, () => {
      server.off("error", reject);
      server.on("error", () => {}); // a failed accept (EMFILE) ends that connection only
      const address = server.address();
      const url = typeof address === "object" && address !== null ? tcpUrl(address.address, address.port) : options.url;
      resolve({ url, close: () => server.close() });
    });
  });
}

function tcpUrl(host: string, port: number): string {
  return `tcp://${host.includes(":") ? `[${host}]` : host}:${port}`;
}
