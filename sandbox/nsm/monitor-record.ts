import { type Clock, startDeadline } from "../../src/async/index.ts";
import { type ConnectionEvent, MonitorConnection } from "../../src/gen/connection_pb.ts";
import type { RpcClient } from "../../src/rpc/index.ts";

export interface WatchOptions {
  readonly client: RpcClient;
  /** URL of the server whose connections are watched. */
  readonly target: string;
  /** Segments that a connection's path must contain in a row; empty: every connection. */
  readonly segments?: readonly { readonly name?: string; readonly id?: string }[];
  readonly clock: Clock;
}

/** What a monitor stream has published so far, kept for a test to look at or to wait for. */
export class MonitorRecord {
  readonly events: ConnectionEvent[] = [];
  /** Why the stream ended: undefined while it runs, "end" after a clean end. */
  ended: "end" | Error | undefined;
  readonly #clock: Clock;
  readonly #waiting = new Set<() => void>();
  readonly #stop: () => void;

  constructor(options: WatchOptions) {
    this.#clock = options.clock;
    const stream = options.client.stream(
      options.target,
      MonitorConnection.method.monitorConnections,
      { pathSegments: [...(options.segments ?? [])] },
      {},
    );
    this.#stop = () => stream.cancel();
    void this.#read(stream);
  }

  /** The first event, seen already or still to come, that fits. @throws {DeadlineError} when none came within `limitMs`. */
  async next(fits: (event: ConnectionEvent) => boolean, limitMs = 120_000): Promise<ConnectionEvent> {
    const deadline = startDeadline(this.#clock, limitMs, { what: "wait for a monitor event" });
    try {
      while (true) {
        const found = this.events.find(fits);
        if (found !== undefined) return found;
        if (this.ended !== undefined) throw new Error(`The monitor stream has ended: ${String(this.ended)}`);
        await this.#change(deadline.signal);
      }
    } finally {
      deadline.end();
    }
  }

  stop(): void {
    this.#stop();
  }

  async #read(stream: AsyncIterable<ConnectionEvent>): Promise<void> {
    try {
      for await (const event of stream) {
        this.events.push(event);
        this.#notify();
      }
      this.ended = "end";
    } catch (error) {
      this.ended = error instanceof Error ? error : new Error(String(error));
    }
    this.#notify();
  }

  #notify(): void {
    for (const wake of [...this.#waiting]) wake();
  }

  #change(signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      const done = () => {
        this.#waiting.delete(done);
        signal.removeEventListener("abort", done);
        if (signal.aborted) reject(signal.reason);
        else resolve();
      };
      signal.addEventListener("abort", done, { once: true });
      this.#waiting.add(done);
    });
  }
}
