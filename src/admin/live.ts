import { once } from "node:events";
import type { ServerResponse } from "node:http";
import { type Clock, guarded } from "../async/index.ts";
import type { NodeView, NodeViewSource } from "./view-form.ts";

/** Changes come in bursts, and a view of a node with hundreds of VFs is some 100 KiB: as often as eyes can follow. */
const PAUSE_MS = 300;
/** Proxies end a stream that is silent, and a peer that vanished is only found by talking to it. */
const HEARTBEAT_MS = 15_000;
const MOST_STREAMS = 16;

/** How one stream encodes what it shows; each text must be one line. */
export type RenderEvent = (view: NodeView) => string;

/** Sends the node to each browser that watches, at once and at each change, as server-sent events (HTML Living Standard, 9.2). */
export class LiveViews {
  readonly #source: NodeViewSource;
  readonly #clock: Clock;
  readonly #streams = new Set<ServerResponse>();

  constructor(source: NodeViewSource, clock: Clock) {
    this.#source = source;
    this.#clock = clock;
  }

  get isFull(): boolean {
    return this.#streams.size >= MOST_STREAMS;
  }

  /** Begins the stream; it ends with its reader. */
  serve(response: ServerResponse, render: RenderEvent): void {
    const closed = new AbortController();
    const stream = new Stream(response, closed.signal, this.#clock, () => render(this.#source.view()));
    this.#streams.add(response);
    const stop = this.#source.onChange(() => stream.changed());
    const ended = () => {
      this.#streams.delete(response);
      closed.abort();
      stop();
    };
    response.once("close", guarded("admin-http", ended, ended));
    response.on("error", () => {}); // its close is what counts
    stream.changed();
    void stream.beat();
  }
}

/** One reader. One that does not read gets no further view until it has: nothing piles up for it. */
class Stream {
  readonly #response: ServerResponse;
  readonly #closed: AbortSignal;
  readonly #clock: Clock;
  readonly #text: () => string;
  #isChanged = false;
  #isBusy = false;

  constructor(response: ServerResponse, closed: AbortSignal, clock: Clock, text: () => string) {
    this.#response = response;
    this.#closed = closed;
    this.#clock = clock;
    this.#text = text;
  }

  changed(): void {
    this.#isChanged = true;
    if (!this.#isBusy) void this.#send().catch(() => this.#response.destroy());
  }

  async beat(): Promise<void> {
    while (!this.#closed.aborted) {
      this.#response.write(": still here\n\n");
      await this.#clock.sleep(HEARTBEAT_MS, this.#closed).catch(() => {}); // the reader has gone
    }
  }

  async #send(): Promise<void> {
    this.#isBusy = true;
    while (this.#isChanged) {
      this.#isChanged = false;
      const hasRoom = this.#response.write(`data: ${this.#text()}\n\n`);
      if (!hasRoom) await once(this.#response, "drain", { signal: this.#closed });
      await this.#clock.sleep(PAUSE_MS, this.#closed);
    }
    this.#isBusy = false;
  }
}
