// What nsm knows of its peers' connections: gRPC's calls, which are rpc's, and descriptors, which are the kernel's.
import type { RpcClient } from "../rpc/index.ts";

/** Calls to peers; one kept connection for each target. */
export type Caller = Pick<RpcClient, "call" | "stream">;

/** An owned file descriptor; who holds it closes it. */
export interface OwnedFd {
  readonly number: number;
  close(): void;
}

/** What names a file on its machine. */
export interface FileId {
  readonly dev: bigint;
  readonly ino: bigint;
}

/** Descriptors that came over one unix connection. */
export interface PassedFds {
  /** Waits for the file; the caller owns the descriptor it gets. */
  receive(id: FileId, signal: AbortSignal): Promise<OwnedFd>;
  /** A call that names the file has come. */
  expect(id: FileId): void;
  /** Drops the connection's own copy, unless one has come for a call that has not come yet. */
  release(id: FileId): void;
}
