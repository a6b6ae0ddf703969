import type { DescMessage, DescMethodServerStreaming, MessageInitShape, MessageShape } from "@bufbuild/protobuf";
import type { Clock } from "../../async/index.ts";
import { type NetworkService, NetworkServiceEndpointRegistry, NetworkServiceRegistry } from "../../gen/registry_pb.ts";
import { DialRefused } from "../../rpc/index.ts";
import { NsmError } from "../fault.ts";
import { isInodeUrl } from "../mechanism/inode-url.ts";
import type { Caller, PassedFds } from "../peers.ts";
import type { EndpointSocket, EndpointSockets } from "./endpoint-sockets.ts";
import { FairList, FairOrder } from "./fair-order.ts";
import { type FoundEndpoint, foundEndpoint } from "./found-endpoint.ts";
import { matchEndpoints } from "./match-endpoints.ts";

/** So many endpoints of a service are kept, in so many bytes; beyond, the registrant that has most makes room. */
const ENDPOINT_LIMIT = { entries: 1024, bytes: 2 * 1024 * 1024 };

/** An endpoint of a longer URL is none: a socket's path has 108 bytes, and URLs are remembered. */
const URL_BYTES = 256;

/** More answers than this to one question are not read: what has come by then is what there is. */
const ANSWER_LIMIT = 16_384;

/** A Request does not live long enough to try more endpoints than this. */
const CANDIDATE_LIMIT = 16;

/** An endpoint that may serve a Request. */
export interface Candidate {
  readonly name: string;
  readonly socket: EndpointSocket;
  /** What came of a Request to it, for the order of later ones. */
  readonly note?: (outcome: "agreed" | "failed") => void;
}

/** What is known of the desired service. */
interface EndpointRequest {
  readonly networkService: string;
  readonly payload: string;
  readonly labels: Readonly<Record<string, string>>;
  /** Empty: any endpoint of the service. */
  readonly endpointName: string;
  /** For whom: sockets of endpoints count for it. */
  readonly owner: string;
}

/** What the registry offers for a request. */
export interface Offer {
  /** Payload of the service; empty when an endpoint was requested by name. */
  readonly payload: string;
  /** In the order to try them. The receiver releases the socket of each. */
  readonly candidates: readonly Candidate[];
}

interface Found {
  readonly list: readonly FoundEndpoint[];
  readonly fds: PassedFds | undefined;
}

interface Search {
  readonly service: string;
  readonly signal: AbortSignal;
  readonly isWanted?: (entry: { readonly name: string }) => boolean;
}

interface Listening<T> {
  readonly signal: AbortSignal;
  /** Each answer, with the descriptors of the connection that it came over. */
  readonly heard: (answer: T, fds: PassedFds | undefined) => void;
}

interface DiscoveryOptions {
  /** The manager: it answers for the registry. */
  readonly target: string;
  readonly caller: Caller;
  readonly sockets: EndpointSockets;
  readonly clock: Clock;
}

/** The original's discover and roundrobin: finds endpoints through the manager (nsm-protocol §2.10, §2.11, §4). */
export class Discovery {
  readonly #options: DiscoveryOptions;
  readonly #order: FairOrder;
  #finding = 0;
  /** Sockets that came with answers and were of no use to the search they came for, by their URL. */
  readonly #unwanted = new Map<string, PassedFds>();

  constructor(options: DiscoveryOptions) {
    this.#options = options;
    this.#order = new FairOrder(options.clock);
  }

  /** @throws {NsmError} service-not-found, endpoint-not-found, no-candidates, registry; the registry's RpcError. */
  async find(sought: EndpointRequest, signal: AbortSignal): Promise<Offer> {
    this.#finding += 1;
    try {
      return sought.endpointName === "" ? await this.#byService(sought, signal) : await this.#byName(sought, signal);
    } finally {
      this.#finding -= 1;
      if (this.#finding === 0 || this.#unwanted.size > ENDPOINT_LIMIT.entries) this.#letGo();
    }
  }

  /** Searches at the same time share one connection, and that holds one copy of each socket: the last one clears up. */
  #letGo(): void {
    for (const [url, fds] of this.#unwanted) this.#options.sockets.disclaim(url, fds);
    this.#unwanted.clear();
  }

  async #byName(sought: EndpointRequest, signal: AbortSignal): Promise<Offer> {
    const name = sought.endpointName;
    const search = { service: sought.networkService, signal };
    // A registry also answers with names that contain this one.
    const found = await this.#endpoints({ name }, { ...search, isWanted: (entry) => entry.name === name });
    const [endpoint] = found.list;
    if (!endpoint) throw new NsmError({ kind: "endpoint-not-found", endpoint: name });
    if (this.#isExpired(endpoint)) {
      throw new NsmError({ kind: "endpoint-not-found", endpoint: name, why: "its registration has expired" });
    }
    if (!endpoint.isServing) {
      const why = `it does not serve ${sought.networkService}`;
      throw new NsmError({ kind: "endpoint-not-found", endpoint: name, why });
    }
    return { payload: "", candidates: await this.#take([endpoint], found, { owner: sought.owner, signal }) };
  }

  async #byService(sought: EndpointRequest, signal: AbortSignal): Promise<Offer> {
    const { networkService: name, payload, labels, owner } = sought;
    const query = { networkService: { name, payload } };
    let service: NetworkService | undefined;
    await this.#query(NetworkServiceRegistry.method.find, query, {
      signal,
      heard({ networkService: entry, deleted }) {
        if (!service && !deleted && entry?.name === name) service = entry;
      },
    });
    if (!service) throw new NsmError({ kind: "service-not-found", service: name });
    const found = await this.#endpoints({ networkServiceNames: [service.name] }, { service: service.name, signal });
    const alive = found.list.filter((endpoint) => !this.#isExpired(endpoint));
    const fitting = matchEndpoints(labels, service, alive);
    if (fitting.length === 0) throw new NsmError({ kind: "no-candidates" });
    const candidates = await this.#take(this.#order.of(service.name, fitting), found, { owner, signal });
    return { payload: service.payload, candidates };
  }

  async #endpoints(
    networkServiceEndpoint: { readonly name?: string; readonly networkServiceNames?: string[] },
    { service, signal, isWanted = () => true }: Search,
  ): Promise<Found> {
    const list = new FairList<FoundEndpoint>(ENDPOINT_LIMIT);
    const query = { networkServiceEndpoint };
    const fds = await this.#query(NetworkServiceEndpointRegistry.method.find, query, {
      signal,
      heard: ({ networkServiceEndpoint: entry, deleted }, cameBy) => {
        if (!entry) return;
        const isReachable = Buffer.byteLength(entry.url) <= URL_BYTES;
        // Noted as it comes: the list may end in an error, and nothing of it may fit.
        if (cameBy && isReachable) this.#unwanted.set(entry.url, cameBy);
        // The latest word about a name counts: a list may repeat an endpoint, or take it back.
        if (deleted || !isReachable) list.remove(entry.name);
        else if (isWanted(entry)) list.add(foundEndpoint(entry, service));
      },
    });
    return { list: list.entries, fds };
  }

  /** Reads the list; an error in the middle is an error, not the list's end (W36). Answers with the descriptors that came with it. */
  async #query<I extends DescMessage, O extends DescMessage>(
    method: DescMethodServerStreaming<I, O>,
    query: MessageInitShape<I>,
    { signal, heard }: Listening<MessageShape<O>>,
  ): Promise<PassedFds | undefined> {
    const stream = this.#options.caller.stream(this.#options.target, method, query, { signal });
    // Its failure is also the stream's, and is seen there.
    const connection = stream.connection.catch(() => undefined);
    let left = ANSWER_LIMIT;
    for await (const answer of stream) {
      heard(answer, (await connection)?.fds);
      left -= 1;
      if (left > 0) continue;
      stream.cancel();
      break;
    }
    return (await connection)?.fds;
  }

  /** A candidate whose socket did not come is left out: the others may still serve. */
  async #take(
    endpoints: readonly FoundEndpoint[],
    found: Found,
    search: { readonly owner: string; readonly signal: AbortSignal },
  ): Promise<readonly Candidate[]> {
    const { sockets } = this.#options;
    const tried = endpoints.slice(0, CANDIDATE_LIMIT);
    const taken = new Map<FoundEndpoint, Candidate>();
    let failure: unknown;
    const take = async (endpoint: FoundEndpoint): Promise<boolean> => {
      const { name, url } = endpoint;
      const note = (outcome: "agreed" | "failed") => this.#order[outcome](endpoint);
      try {
        taken.set(endpoint, { name, socket: await sockets.acquire(url, found.fds, search), note });
        return true;
      } catch (error) {
        if (!search.signal.aborted && !(error instanceof DialRefused)) note("failed");
        failure = error;
        return false;
      }
    };
    const others = tried.filter(({ url }) => !isInodeUrl(url));
    const left = tried.filter(({ url }) => isInodeUrl(url)).values();
    const takeOne = async () => {
      for (const endpoint of left) if (await take(endpoint)) return;
    };
    // Side by side: each that does not come is waited for.
    const places = Math.min(sockets.eachSearch, CANDIDATE_LIMIT);
    await Promise.all([...others.map(take), ...Array.from({ length: places }, takeOne)]);
    const candidates = tried.flatMap((endpoint) => taken.get(endpoint) ?? []);
    if (candidates.length === 0) throw failure;
    return candidates;
  }

  #isExpired({ expiresAtMs }: FoundEndpoint): boolean {
    return expiresAtMs !== undefined && expiresAtMs <= this.#options.clock.now();
  }
}
