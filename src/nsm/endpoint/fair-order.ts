// In which order endpoints are tried, and which are kept of a long list: by who registered them, not by how many those are.
import type { Clock } from "../../async/index.ts";
import type { FoundEndpoint } from "./found-endpoint.ts";

/** What of an endpoint decides its place. */
type Registered = Pick<FoundEndpoint, "name" | "registrant">;

/** Services whose turn is remembered, and failures: any peer can register services and endpoints, and request each once. */
const MOST_REMEMBERED = 1024;

/** An endpoint that failed, and others of the same registrant, are tried after the rest for so long. */
const FAILED_MS = 30_000;

/** The order of endpoints over successive Requests. */
export class FairOrder {
  readonly #clock: Pick<Clock, "monotonicMs">;
  /** How often each service was requested: successive Requests begin at successive registrants, and at their successive endpoints. */
  readonly #turns = new Map<string, number>();
  /** Until when endpoints and registrants come last. */
  readonly #failed = new Map<string, number>();

  constructor(clock: Pick<Clock, "monotonicMs">) {
    this.#clock = clock;
  }

  /** One of each registrant, then a second of each, and so on; those that failed recently after the others. */
  of<E extends Registered>(service: string, endpoints: readonly E[]): readonly E[] {
    const turn = this.#turns.get(service) ?? 0;
    remember(this.#turns, service, turn + 1);
    const byRegistrant = [...Map.groupBy(endpoints, ({ registrant }) => registrant).values()];
    const round = Math.floor(turn / byRegistrant.length);
    const rotated = rotate(byRegistrant, turn).map((own) => rotate(own, round));
    const most = Math.max(...rotated.map((own) => own.length));
    const fair = Array.from({ length: most }, (_, nth) => rotated.flatMap((own) => own.slice(nth, nth + 1))).flat();
    const ranked = fair.map((endpoint) => ({ endpoint, rank: this.#rank(endpoint) }));
    return ranked.sort((a, b) => a.rank - b.rank).map(({ endpoint }) => endpoint);
  }

  /** A Request to it, or the way to it, has failed. */
  failed(endpoint: Registered): void {
    const untilMs = this.#clock.monotonicMs() + FAILED_MS;
    for (const key of keysOf(endpoint)) remember(this.#failed, key, untilMs);
  }

  agreed(endpoint: Registered): void {
    for (const key of keysOf(endpoint)) this.#failed.delete(key);
  }

  #rank(endpoint: Registered): number {
    const nowMs = this.#clock.monotonicMs();
    const [own = false, registrants = false] = keysOf(endpoint).map((key) => (this.#failed.get(key) ?? 0) > nowMs);
    if (own) return 2;
    return registrants ? 1 : 0;
  }
}

function keysOf({ name, registrant }: Registered): readonly [own: string, registrants: string] {
  return [`endpoint ${name}`, `registrant ${registrant}`];
}

function rotate<T>(list: readonly T[], by: number): readonly T[] {
  const first = by % list.length;
  return [...list.slice(first), ...list.slice(0, first)];
}

/** Set again, so that what was not heard of for longest is the first, and forgotten where there are many. */
function remember(map: Map<string, number>, key: string, value: number): void {
  map.delete(key);
  map.set(key, value);
  const [oldest] = map.keys();
  if (oldest !== undefined && map.size > MOST_REMEMBERED) map.delete(oldest);
}

/** What a list keeps at most. */
interface FairLimits {
  readonly entries: number;
  readonly bytes: number;
}

/** Of one registrant. */
interface Share {
  readonly names: Set<string>;
  bytes: number;
}

/** The latest word about each endpoint of a list. Where there are too many, those of the registrant that has most make room. */
export class FairList<E extends Registered & Pick<FoundEndpoint, "bytes">> {
  readonly #limits: FairLimits;
  readonly #byName = new Map<string, E>();
  readonly #shares = new Map<string, Share>();
  #bytes = 0;

  constructor(limits: FairLimits) {
    this.#limits = limits;
  }

  get entries(): readonly E[] {
    return [...this.#byName.values()];
  }

  add(entry: E): void {
    const { name, registrant, bytes } = entry;
    this.remove(name);
    this.#byName.set(name, entry);
    this.#bytes += bytes;
    const share = this.#shares.get(registrant) ?? { names: new Set(), bytes: 0 };
    share.names.add(name);
    share.bytes += bytes;
    this.#shares.set(registrant, share);
    if (this.#byName.size > this.#limits.entries) this.#dropOne(share, ({ names }) => names.size);
    while (this.#bytes > this.#limits.bytes) this.#dropOne(share, (of) => of.bytes);
  }

  remove(name: string): void {
    const entry = this.#byName.get(name);
    if (!entry) return;
    this.#byName.delete(name);
    this.#bytes -= entry.bytes;
    const share = this.#shares.get(entry.registrant);
    if (!share) return;
    share.names.delete(name);
    share.bytes -= entry.bytes;
    if (share.names.size === 0) this.#shares.delete(entry.registrant);
  }

  /** The latest of the registrant that has most; that of the newcomer where several have as much. */
  #dropOne(newcomer: Share, measure: (share: Share) => number): void {
    let most = newcomer;
    for (const share of this.#shares.values()) if (measure(share) > measure(most)) most = share;
    const last = [...most.names].at(-1);
    if (last !== undefined) this.remove(last);
  }
}
