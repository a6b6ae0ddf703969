// Earlier names of ours that connections stand under: each is an endpoint of its own in the registry, on a socket of its own, for as long
// as it is needed. docs/decisions/052-an-upgrade-is-not-a-new-node.md
import { type Backoff, backoffMs, type Clock, createBackoff, guarded, type Timer } from "../async/index.ts";
import type { Fd } from "../kernel/index.ts";
import type { ForwarderService, Registration } from "../nsm/index.ts";
import type { RpcServer } from "../rpc/index.ts";
import type { Log } from "../telemetry/index.ts";

/** Each takes a socket, and a call and a watch at the manager. Connections under other names are found when the manager reselects. */
const MOST = 16;
/** Where they may be: a place that cannot be listened on is no loss. */
const PLACES = Array.from({ length: 2 * MOST }, (_, index) => index + 1);

/** Waits between tries to serve what could not be served. */
const FIRST_RETRY_MS = 500;
const LONGEST_RETRY_MS = 30_000;
/** As long a place is avoided where nothing could be served: longer after each further time, for another process may have it for good. */
const PLACE_PAUSE = { firstMs: 30_000, limitMs: 3_600_000 };

interface EarlierNamesOptions {
  readonly service: Pick<ForwarderService, "earlierNames" | "handlersUnder" | "setRegistered">;
  /** Serves these handlers at the nth further socket. @throws {RpcError} when it cannot be listened on. */
  readonly serve: (nth: number, handlers: ReturnType<ForwarderService["handlersUnder"]>) => Promise<RpcServer>;
  /** An entry in the registry that leads to that server; not begun. */
  readonly register: (name: string, socket: Fd) => Pick<Registration, "state" | "start" | "stop">;
  /** Calls under way when a server ends have so long, in ms. */
  readonly graceMs: number;
  /** Spreads retries, a number in [0, 1). */
  readonly spread: () => number;
  readonly clock: Clock;
  readonly log: Log;
}

interface ServedName {
  readonly nth: number;
  /** Takes it out of the registry. */
  unregister(): Promise<void>;
  stopServer(): Promise<void>;
}

export class EarlierNames {
  readonly #options: EarlierNamesOptions;
  readonly #served = new Map<string, ServedName>();
  /** Where nothing could be served, how often by now, and until when others are tried before. */
  readonly #badPlaces = new Map<number, { readonly times: number; readonly untilMs: number }>();
  /** What could not be served, and waits for its next try. */
  readonly #pausing = new Set<string>();
  readonly #retries: Backoff;
  #retry: Timer | undefined;
  #stopFollowing = () => {};
  #working: Promise<void> = Promise.resolve();
  #isStopped = false;
  #isWorking = false;

  constructor(options: EarlierNamesOptions) {
    this.#options = options;
    this.#retries = createBackoff({ firstMs: FIRST_RETRY_MS, limitMs: LONGEST_RETRY_MS, random: options.spread });
  }

  /** Not before we are registered by our own name: nothing may delay that. */
  start(): void {
    this.#stopFollowing = this.#options.service.earlierNames.onChange(() => this.#follow());
    this.#follow();
  }

  /** None leads to us any more; the servers still answer. */
  async unregister(): Promise<void> {
    this.#isStopped = true;
    this.#stopFollowing();
    await this.#working;
    this.#retry?.cancel();
    await Promise.all([...this.#served.values()].map((served) => served.unregister()));
  }

  async stopServers(): Promise<void> {
    await Promise.all([...this.#served.values()].map((served) => served.stopServer()));
  }

  #follow(): void {
    if (!this.#isWorking) this.#working = this.#work();
  }

  /** One thing after another, until nothing is left to do; from then on, with no moment between, a change begins it again. */
  async #work(): Promise<void> {
    this.#isWorking = true;
    try {
      while (!this.#isStopped) {
        const wanted = this.#wanted();
        const over = [...this.#served].find(([name]) => !wanted.includes(name));
        const missing = wanted.find((name) => !this.#served.has(name) && !this.#pausing.has(name));
        if (over) await this.#end(...over);
        else if (missing !== undefined) await this.#begin(missing);
        else return;
      }
    } finally {
      this.#isWorking = false;
    }
  }

  #wanted(): readonly string[] {
    const all = this.#options.service.earlierNames.value ?? [];
    // What is served stays while it is needed, though another name may have more connections by now.
    const isServed = (name: string) => this.#served.has(name);
    return [...all.filter(isServed), ...all.filter((name) => !isServed(name))].slice(0, MOST);
  }

  async #end(name: string, served: ServedName): Promise<void> {
    await served.unregister();
    await served.stopServer();
    this.#served.delete(name);
    this.#options.log.info("earlier-name-ended", { name });
  }

  async #begin(name: string): Promise<void> {
    const { clock, log } = this.#options;
    const nth = this.#freePlace();
    try {
      this.#served.set(name, await this.#serve(name, nth));
      this.#badPlaces.delete(nth);
      this.#retries.reset();
    } catch (error) {
      this.#avoid(nth);
      this.#pausing.add(name);
      this.#retry ??= clock.after(
        this.#retries.nextMs(),
        guarded("timer", () => {
          this.#retry = undefined;
          this.#pausing.clear();
          this.#follow();
        }),
      );
      log.warn("earlier-name-not-served", { name, error: String(error) });
    }
  }

  #freePlace(): number {
    const used = new Set([...this.#served.values()].map((served) => served.nth));
    const free = PLACES.filter((nth) => !used.has(nth));
    const nowMs = this.#options.clock.monotonicMs();
    const badUntilMs = (nth: number) => Math.max(nowMs, this.#badPlaces.get(nth)?.untilMs ?? nowMs);
    // Where all are bad, the one first whose pause ends first.
    const [best = 1] = free.sort((a, b) => badUntilMs(a) - badUntilMs(b) || a - b);
    return best;
  }

  #avoid(nth: number): void {
    const { clock, spread } = this.#options;
    const { times = 0 } = this.#badPlaces.get(nth) ?? {};
    const untilMs = clock.monotonicMs() + backoffMs({ ...PLACE_PAUSE, random: spread }, times);
    this.#badPlaces.set(nth, { times: times + 1, untilMs });
  }

  /** @throws what cannot be served, listened on, or registered; nothing is left of it then. */
  async #serve(name: string, nth: number): Promise<ServedName> {
    const { service, serve, graceMs } = this.#options;
    const server = await serve(nth, service.handlersUnder(name));
    const stopServer = () => server.stop(graceMs);
    try {
      return { nth, unregister: this.#register(name, server.openSocket()), stopServer };
    } catch (error) {
      await stopServer();
      throw error;
    }
  }

  /** Returns how to take it out of the registry. */
  #register(name: string, socket: Fd): () => Promise<void> {
    const { service, register } = this.#options;
    try {
      const registration = register(name, socket);
      const forget = this.#followState(name, registration.state);
      registration.start();
      return async () => {
        forget();
        service.setRegistered(name, false);
        await registration.stop();
        socket.close();
      };
    } catch (error) {
      socket.close();
      throw error;
    }
  }

  #followState(name: string, state: Registration["state"]): () => void {
    const { service } = this.#options;
    // From the first try on: the manager may have us before its answer is here.
    service.setRegistered(name, true);
    let wasAccepted = false;
    return state.onChange((now) => {
      wasAccepted ||= now.kind === "registered";
      // Lost is what there was: the manager has it still, or will again.
      service.setRegistered(name, now.kind === "registered" || (wasAccepted && !now.isPermanent));
    });
  }
}
