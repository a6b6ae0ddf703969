// What a connection needs of the modules below, as small interfaces: `composition/nsm-server.ts` fits the real things in,
// the tests fit in hand fakes.
import type {
  DescMessage,
  DescMethodServerStreaming,
  DescMethodUnary,
  MessageInitShape,
  MessageShape,
} from "@bufbuild/protobuf";

/** An owned file descriptor; whoever holds it closes it. */
export interface OwnedFd {
  readonly number: number;
  dup(): OwnedFd;
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
  /** Drops the connection's own copy, unless one has come for a call that nobody has seen yet. */
  release(id: FileId): void;
}

/** Who is at the other end, by its verified certificate. */
export interface Peer {
  readonly spiffeId: string;
  readonly certificatePem: string;
  readonly notAfterMs: number;
}

/** One connection of gRPC calls. */
export interface PeerConnection {
  readonly peer: Peer | undefined;
  /** Unix sockets only. */
  readonly fds: PassedFds | undefined;
  /** What the peer has seen of us: `Tokens.issue` signs with its key. */
  readonly shown?: object | undefined;
  /** Has the peer come back with its newest certificate; false when it has shown that already. */
  renew?(): boolean;
}

export type Metadata = ReadonlyMap<string, readonly string[]>;

/** What a handler is told about its call. */
export interface IncomingCall {
  readonly connection: PeerConnection;
  /** Aborted when the caller cancels or is lost, or its deadline passes. */
  readonly signal: AbortSignal;
  /** What was left when the call came, in ms. */
  readonly deadlineMs: number | undefined;
  readonly metadata: Metadata;
}

export interface CallOptions {
  readonly signal?: AbortSignal;
  readonly timeoutMs?: number;
  readonly metadata?: Readonly<Record<string, string>>;
  readonly fds?: readonly OwnedFd[];
}

export interface Answer<O> {
  readonly response: O;
  readonly metadata: Metadata;
  readonly connection: PeerConnection;
}

export interface AnswerStream<O> extends AsyncIterable<O> {
  readonly connection: Promise<PeerConnection>;
  cancel(): void;
}

/** Calls to peers; one kept connection for each target. */
export interface Caller {
  call<I extends DescMessage, O extends DescMessage>(
    target: string,
    method: DescMethodUnary<I, O>,
    request: MessageInitShape<I>,
    options?: CallOptions,
  ): Promise<Answer<MessageShape<O>>>;
  stream<I extends DescMessage, O extends DescMessage>(
    target: string,
    method: DescMethodServerStreaming<I, O>,
    request: MessageInitShape<I>,
    options?: CallOptions,
  ): AnswerStream<MessageShape<O>>;
}

/** Tokens of NSM paths: nsm-protocol §5. */
export interface Tokens {
  /** A token of ours for this audience, signed with the key of what it was shown. */
  issue(audience: Peer, shown?: object): IssuedToken;
  /** The caller's token of the headers; undefined unless both headers are there once and well formed. */
  fromHeaders(metadata: Metadata): IssuedToken | undefined;
  /** The `exp` claim in ms since 1970. @throws if the text is no token. */
  expiryOf(token: string): number;
}

export interface IssuedToken {
  readonly token: string;
  readonly expiresMs: number;
}

/** The left side of a path as the policies see it. */
export interface PathToCheck {
  readonly index: number;
  readonly segments: readonly { readonly name: string; readonly id: string; readonly token: string }[];
  readonly peer: Peer;
  readonly nowMs: number;
}

/** The policies of the server: nsm-protocol §2.4. */
export interface PathPolicies {
  /** @throws when a policy refuses; the error says which. */
  check(path: PathToCheck): void;
}

/** Remembers on disk what stands, before it stands. Each call resolves when the entry is safe. */
export interface ConnectionJournal {
  put(entry: JournalEntry): Promise<void>;
  drop(connectionId: string): Promise<void>;
}

/** What the next instance must know of a connection to continue it, or to take it down. */
export type JournalEntry = KeptConnection &
  ({ readonly mechanism: "NOOP" } | { readonly mechanism: "KERNEL" | "VFIO"; readonly tokenId: string });

interface KeptConnection {
  readonly connectionId: string;
  readonly owner: { readonly spiffeId: string; readonly isManager: boolean };
  readonly stage: "preparing" | "ready" | "reclaiming";
  /** The connection as of the last answer, or as it is asked for while preparing; in protobuf form, without tokens. */
  readonly connection?: Uint8Array;
  /** Unix time in ms until which it was to be refreshed. */
  readonly expiresMs?: number;
}
