import type { Connection, Mechanism } from "../../src/gen/connection_pb.ts";
import type { Fd, FileId } from "../../src/kernel/index.ts";
import { type Connection as RpcConnection, RpcError } from "../../src/rpc/index.ts";

/** The URL that names a passed descriptor on the wire (nsm-protocol §6.4): `inode://<st_dev>/<st_ino>`. */
export function inodeUrlOf(id: FileId): string {
  return `inode://${id.dev}/${id.ino}`;
}

/** @throws {RpcError} INVALID_ARGUMENT when it is no inode URL. */
export function parseInodeUrl(url: string): FileId {
  const parts = /^inode:\/\/(\d{1,20})\/(\d{1,20})$/.exec(url);
  if (parts?.[1] === undefined || parts[2] === undefined) {
    throw new RpcError("INVALID_ARGUMENT", `cannot parse "${url}": want inode://dev/ino`);
  }
  return { dev: BigInt(parts[1]), ino: BigInt(parts[2]) };
}

/** Where the socket behind a descriptor can be dialled from this process (nsm-protocol §6.6). */
export function socketUrlOf(socket: Fd): string {
  return `unix:///proc/self/fd/${socket.number}`;
}

/** Waits for the descriptor that an inode URL names. The caller owns it. */
export async function receiveInode(url: string, connection: RpcConnection, signal: AbortSignal): Promise<Fd> {
  const id = parseInodeUrl(url);
  if (connection.fds === undefined) {
    throw new RpcError("INVALID_ARGUMENT", `cannot receive ${url}: descriptors pass on unix sockets only`);
  }
  return connection.fds.receive(id, signal);
}

/** The descriptors that came with one connection, by their inode URL, kept from its first Request to its Close. */
export class PassedFiles {
  readonly #files = new Map<string, Fd>();

  /** Receives what the mechanisms name and is not held yet. Returns all that they name. */
  async receive(mechanisms: readonly Mechanism[], from: RpcConnection, signal: AbortSignal): Promise<readonly Fd[]> {
    const urls = new Set(mechanisms.map(({ parameters }) => parameters["inodeURL"]).filter((url) => isInodeUrl(url)));
    const fds: Fd[] = [];
    for (const url of urls) {
      const fd = this.#files.get(url) ?? (await receiveInode(url, from, signal));
      this.#files.set(url, fd);
      fds.push(fd);
    }
    return fds;
  }

  /** Closes them, and the copies that the transport kept. */
  close(from: RpcConnection | undefined): void {
    for (const fd of this.#files.values()) {
      from?.fds?.release(fd.id());
      fd.close();
    }
    this.#files.clear();
  }
}

/** Every mechanism that a Request names: the chosen one and the preferences. */
export function mechanismsOf(connection: Connection, preferences: readonly Mechanism[]): readonly Mechanism[] {
  return connection.mechanism === undefined ? preferences : [connection.mechanism, ...preferences];
}

function isInodeUrl(url: string | undefined): url is string {
  return url?.startsWith("inode:") === true;
}
