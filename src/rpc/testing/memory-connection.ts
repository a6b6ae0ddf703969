import { setMaxListeners } from "node:events";
import { FdExchange } from "../../kernel/index.ts";
import type { PeerIdentity, TlsCredentials } from "../connection.ts";
import { RpcError, Untouched } from "../status.ts";
import type {
  AnswerReader,
  CallTaker,
  ClientConnection,
  ClientStream,
  OutgoingCall,
  ServerConnection,
} from "../transport.ts";
import { MemoryClientStream, MemoryServerStream, type Send } from "./memory-call.ts";
import { type Delays, MemoryLane } from "./memory-lane.ts";

/** What one end knows of the other. */
interface EndFacts {
  readonly peer: PeerIdentity | undefined;
  readonly shown: TlsCredentials | undefined;
  readonly remote: string;
  /** Whether descriptors can travel. */
  readonly hasFds: boolean;
}

/** One end of a connection in memory. */
export class MemoryEnd implements ServerConnection, ClientConnection {
  readonly peer;
  readonly shown;
  readonly remote: string;
  readonly fds: FdExchange | undefined;
  readonly closed: AbortSignal;
  readonly farewell: AbortSignal;
  /** What takes the calls that arrive here; undefined at a client's end. */
  taker: CallTaker | undefined;
  readonly #closing = new AbortController();
  readonly #leaving = new AbortController();
  readonly #calls = new Set<{ lost(): void }>();
  readonly #delays: Delays;
  readonly #lane: MemoryLane;
  #other: MemoryEnd = this; // until it is joined

  constructor({ peer, shown, remote, hasFds }: EndFacts, delays: Delays) {
    this.peer = peer;
    this.shown = shown;
    this.remote = remote;
    this.fds = hasFds ? new FdExchange() : undefined;
    this.closed = this.#closing.signal;
    this.farewell = this.#leaving.signal;
    this.#delays = delays;
    this.#lane = new MemoryLane(delays);
    setMaxListeners(0, this.closed);
  }

  join(other: MemoryEnd): void {
    this.#other = other;
    other.#other = this;
  }

  call(outgoing: OutgoingCall, reader: AnswerReader): ClientStream {
    const other = this.#other;
    if (this.closed.aborted || this.farewell.aborted) throw new Untouched("the connection takes no call: it has ended");
    const client = new MemoryClientStream(reader, this.#send, () => this.#calls.delete(client));
    const server = new MemoryServerStream(outgoing, client, other.#send, () => other.#calls.delete(server));
    client.server = server;
    this.#calls.add(client);
    this.#send(() => other.#take(server));
    for (const piece of this.#pieces(outgoing.request)) this.#send(() => server.requestCame(piece));
    this.#send(() => server.requestCame());
    return client;
  }

  /** Its end takes all that come: what a peer may have is counted above. */
  takeAtOnce(): void {}

  sayFarewell(): void {
    this.#send(() => this.#other.#leaving.abort());
    this.#leaving.abort();
  }

  cut(): void {
    this.#send(() => this.#other.#end());
    this.#end();
  }

  /** Queued descriptors travel with whatever is sent next. */
  readonly #send: Send = (arrive) => {
    if (this.closed.aborted) return;
    const other = this.#other;
    for (let fd = this.fds?.takeOutgoing(); fd; fd = this.fds?.takeOutgoing()) {
      const passed = fd;
      this.#lane.send(() => other.fds?.arrived(passed));
    }
    this.#lane.send(() => {
      if (!other.closed.aborted) arrive();
    });
  };

  #take(stream: MemoryServerStream): void {
    // Sent before the caller knew of our farewell: HTTP/2 refuses what is above the last stream that its GOAWAY names.
    if (this.farewell.aborted || !this.taker) {
      stream.refuse();
      return;
    }
    this.#calls.add(stream);
    this.taker.call(stream);
  }

  #end(): void {
    if (this.closed.aborted) return;
    const error = new RpcError("UNAVAILABLE", `the connection with ${this.remote} was closed`);
    this.#closing.abort(error);
    for (const call of [...this.#calls]) call.lost();
    this.fds?.close(error);
  }

  /** A message comes in any pieces. */
  #pieces(bytes: Uint8Array): readonly Uint8Array[] {
    const at = Math.floor(this.#delays.random.fraction() * bytes.length);
    return [Uint8Array.from(bytes.subarray(0, at)), Uint8Array.from(bytes.subarray(at))];
  }
}
