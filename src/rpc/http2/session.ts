import { setMaxListeners } from "node:events";
import type { Http2Session } from "node:http2";
import { guarded } from "../../async/index.ts";
import { RpcError } from "../status.ts";
import type { ServerConnection } from "../transport.ts";
import type { RawStream } from "./raw-stream.ts";
import type { SecureStream } from "./tls.ts";

/** The connection that a session is, at either end: who the peer is, and how all that hold it learn of its end. */
export class SessionConnection implements ServerConnection {
  readonly peer;
  readonly shown;
  readonly fds;
  readonly remote: string;
  readonly closed: AbortSignal;
  readonly farewell: AbortSignal;
  readonly #session: Http2Session;
  readonly #raw: RawStream;
  readonly #closing = new AbortController();
  readonly #leaving = new AbortController();
  #failure = "";

  constructor(session: Http2Session, raw: RawStream, secure: SecureStream | undefined) {
    this.peer = secure?.peer;
    this.shown = secure?.shown;
    this.fds = raw.fds;
    this.remote = raw.remote;
    this.closed = this.#closing.signal;
    this.farewell = this.#leaving.signal;
    this.#session = session;
    this.#raw = raw;
    // Every call and every stored descriptor of a peer may listen: ten are no sign of a leak here.
    setMaxListeners(0, this.closed);
    this.follow("error", ({ message }) => {
      this.#failure = `: ${message}`;
    });
    this.follow("goaway", () => this.#leaving.abort());
    this.follow("close", () => {
      raw.stream.destroy();
      this.#ended(`was closed${this.#failure}`);
    });
  }

  /** What has gone wrong with it, as ": reason"; "" when nothing has. */
  get failure(): string {
    return this.#failure;
  }

  /** Listens to the session; what the listener throws ends the connection. */
  follow(event: string, listener: (error: Error) => void): void {
    const broke = (error: Error) => {
      this.cut();
      this.#ended(`broke: ${error.message}`);
    };
    this.#session.on(event, guarded("http2-session", listener, broke));
  }

  takeAtOnce(calls: number): void {
    if (!this.#session.closed && !this.#session.destroyed) this.#session.settings({ maxConcurrentStreams: calls });
  }

  sayFarewell(): void {
    this.#session.close();
    this.#leaving.abort();
  }

  /** A session alone, once it has said GOAWAY, waits for the peer to close: some never do. The last frames get one turn. */
  cut(): void {
    this.#session.destroy();
    setImmediate(guarded("http2-session", () => void this.#raw.stream.destroy()));
  }

  #ended(how: string): void {
    if (this.closed.aborted) return;
    this.#closing.abort(new RpcError("UNAVAILABLE", `the connection with ${this.remote} ${how}`));
  }
}
