// How calls travel. Above this interface are peers, encoded messages, metadata and statuses; below it sockets, TLS and HTTP/2
// (http2/), or nothing but memory (testing/memory-transport.ts).
import type { Clock } from "../async/index.ts";
import type { Fd, FdBudget } from "../kernel/index.ts";
import type { Log } from "../telemetry/index.ts";
import type { Connection, TlsIdentity } from "./connection.ts";
import type { Headers, Metadata } from "./metadata.ts";
import type { RpcLimits } from "./rpc-limits.ts";
import type { RpcError } from "./status.ts";

/** Connections with peers, by address. */
export interface Transport {
  /** @throws {RpcError} UNAVAILABLE when the address cannot be listened on, INVALID_ARGUMENT when it is no address. */
  listen(options: ListenOptions): Promise<Listener>;
  /** @throws {RpcError} UNAVAILABLE that names the step that failed and why; INVALID_ARGUMENT for what is no address. */
  dial(options: DialOptions): Promise<ClientConnection>;
  /** Names what an address leads to now: two names of one listener are one. */
  identify(target: string): string;
}

/** What a server says of the connections that it takes. */
export interface AcceptOptions {
  /** Who we are, and whom we let in; without it every peer that can connect is let in, and has no name. */
  readonly tls: TlsIdentity | undefined;
  readonly limits: RpcLimits;
  /** Calls that a connection takes at once, and announces to its peer. @param owner SPIFFE ID; "" without TLS */
  callsAtOnce(owner: string): number;
  /** Where descriptors count that come before the peer is known; without one for their connection only. */
  readonly unknownDescriptors?: FdBudget | undefined;
  readonly clock: Clock;
  readonly log: Log;
  /** The peer is known. Undefined where there is no room for the connection: it is cut. */
  connected(connection: ServerConnection): CallTaker | undefined;
}

export interface ListenOptions extends AcceptOptions {
  readonly url: string;
  /** Permissions of a unix socket. */
  readonly socketMode: number;
}

/** What takes the calls of one connection. */
export interface CallTaker {
  /** The peer has shown that it speaks the protocol. Calls come after this only. */
  opened(): void;
  /** A call has arrived. */
  call(stream: ServerStream): void;
}

/** A listening socket. */
export interface Listener {
  /** The real address: with the port that the system chose, where none was requested. */
  readonly url: string;
  /** A descriptor of the socket, which peers can be passed and dial; the caller closes it. @throws for what is no unix socket. */
  openSocket(): Fd;
  /** Takes no further connection, ends those whose peer is not known yet, and removes the socket file. */
  close(): void;
}

/** A connection as its transport has it. */
export interface TransportConnection extends Omit<Connection, "id" | "renew"> {
  /** Aborted when one side has said that no further call begins here (GOAWAY). */
  readonly farewell: AbortSignal;
  /** Ends it now, with all its calls. */
  cut(): void;
}

/** A connection that a peer has made. */
export interface ServerConnection extends TransportConnection {
  /** Takes so many calls at once from now on. */
  takeAtOnce(calls: number): void;
  /** Says that no further call is taken. Those under way continue. */
  sayFarewell(): void;
}

/** TLS with a server that is known by the name of its host. */
export interface ServerTls {
  readonly name: string;
  /** The authorities that may vouch for it; the system's by default. */
  readonly rootsPem: string | undefined;
  /** What we show it, where it asks. */
  readonly certChainPem: string | undefined;
  readonly keyPem: string | undefined;
}

export interface DialOptions {
  /** `unix:///path` or `tcp://host:port`. */
  readonly target: string;
  readonly tls: TlsIdentity | undefined;
  /** For a server of the web in place of a peer with an SVID; read for each dial. */
  readonly serverTls?: (() => Promise<ServerTls>) | undefined;
  readonly limits: RpcLimits;
  readonly clock: Clock;
  /** Until the peer is known and has shown that it speaks the protocol. */
  readonly timeoutMs: number;
  /** Gives the dial up. */
  readonly signal: AbortSignal;
}

/** A connection that we have made. */
export interface ClientConnection extends TransportConnection {
  /**
   * Sends a call with its whole request. What comes back is read from the same turn on.
   * @throws {Untouched} when the connection takes no call any more.
   */
  call(outgoing: OutgoingCall, reader: AnswerReader): ClientStream;
}

/** A call as it leaves. */
export interface OutgoingCall {
  /** "/package.Service/Method" */
  readonly path: string;
  /** Milliseconds that the answer is waited for; undefined without a limit. */
  readonly timeoutMs: number | undefined;
  readonly metadata: Headers;
  /** The message with its prefix. */
  readonly request: Uint8Array;
}

/** A call under way, from the caller's side. */
export interface ClientStream {
  /** Gives the call up, and notifies the peer. */
  cancel(): void;
  /** Nothing more is read; the peer is made to wait when much has come. */
  pause(): void;
  resume(): void;
}

/** What hears the answer. */
export interface AnswerReader {
  data(piece: Uint8Array): void;
  /**
   * The call is over, whatever its end; may come again. Without an error its status was OK.
   * @param error `Untouched` when the peer has not begun to work on the call
   * @param metadata headers and trailers of the answer
   */
  ended(error: RpcError | undefined, metadata: Metadata): void;
  /** Something could not be delivered: `data` or `ended` threw. */
  failed(error: Error): void;
}

/** A call as it arrives. After its end each method does nothing. */
export interface ServerStream {
  /** "/package.Service/Method" */
  readonly path: string;
  readonly metadata: Metadata;
  /** Milliseconds that the caller still wants to wait; undefined when it set no limit. */
  readonly timeoutMs: number | undefined;
  /** Why the call is not one that the transport can serve; it has to be ended with this. */
  readonly refusal: RpcError | undefined;
  /** Resolves when the call is over: answered, cancelled or lost. */
  readonly closed: Promise<void>;
  /** Metadata of the answer; leaves with its first message or its end. */
  answerMetadata: Headers;
  /** Reads the request. To be called in the turn in which the call arrived, or what comes meanwhile is lost. */
  read(reader: StreamReader): void;
  /** Sends a piece of the answer. Resolves when it has left for the peer, or when the call is over. */
  write(piece: Uint8Array): Promise<void>;
  /** Answers with a status; without an error it is OK. */
  end(error?: RpcError): void;
  /** Refuses it as one that was never begun: the caller may try it again elsewhere. */
  refuse(): void;
}

/** What hears the bytes of one direction of a call: messages with their prefixes (frame.ts), cut anyhow. */
export interface StreamReader {
  data(piece: Uint8Array): void;
  /** The peer has sent all that it had to send. */
  ended(): void;
  /** A piece could not be delivered: `data` or `ended` threw. */
  failed(error: Error): void;
}
