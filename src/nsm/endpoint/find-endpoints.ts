import type { DescMessage, DescMethodServerStreaming, MessageInitShape, MessageShape } from "@bufbuild/protobuf";
import { timestampMs } from "@bufbuild/protobuf/wkt";
import type { Clock } from "../../async/index.ts";
import {
  type NetworkService,
  type NetworkServiceEndpoint,
  NetworkServiceEndpointRegistry,
  NetworkServiceRegistry,
} from "../../gen/registry_pb.ts";
import { NsmError } from "../fault.ts";
import type { Caller, PassedFds } from "../peers.ts";
import type { EndpointSocket, EndpointSockets } from "./endpoint-sockets.ts";
import { matchEndpoints } from "./match-endpoints.ts";

/** More answers than this to one question are not read. */
const ANSWER_LIMIT = 1024;

/** A Request does not live long enough to try more endpoints than this. */
const CANDIDATE_LIMIT = 16;

/** Services whose turn is remembered: any peer can register services, and request each once. */
const MOST_TURNS = 1024;

/** An endpoint that may serve a Request. */
export interface Candidate {
  readonly name: string;
  readonly socket: EndpointSocket;
}

/** What is known of the desired service. */
interface EndpointRequest {
  readonly networkService: string;
  readonly payload: string;
  readonly labels: Readonly<Record<string, string>>;
  /** Empty: any endpoint of the service. */
  readonly endpointName: string;
}

/** What the registry offers for a request. */
export interface Offer {
  /** Payload of the service; empty when an endpoint was requested by name. */
  readonly payload: string;
  /** In the order to try them. The receiver releases the socket of each. */
  readonly candidates: readonly Candidate[];
}

interface Found {
  readonly list: readonly NetworkServiceEndpoint[];
  readonly fds: PassedFds | undefined;
}

interface Listening<T> {
  readonly signal: AbortSignal;
  /** Each answer, with the descriptors of the connection that it came over. */
  readonly heard?: (answer: T, fds: PassedFds) => void;
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
  /** How often each service was requested: successive Requests begin at successive candidates. */
  readonly #turns = new Map<string, number>();
  #finding = 0;
  /** Sockets that came with answers and were of no use to the search they came for, by their URL. */
  readonly #unwanted = new Map<string, PassedFds>();

  constructor(options: DiscoveryOptions) {
    this.#options = options;
  }

  /** @throws {NsmError} service-not-found, endpoint-not-found, no-candidates, registry; the registry's RpcError. */
  async find(sought: EndpointRequest, signal: AbortSignal): Promise<Offer> {
    this.#finding += 1;
    try {
      return sought.endpointName === "" ? await this.#byService(sought, signal) : await this.#byName(sought, signal);
    } finally {
      this.#finding -= 1;
      if (this.#finding === 0 || this.#unwanted.size > ANSWER_LIMIT) this.#letGo();
    }
  }

  /** Searches at the same time share one connection, and that holds one copy of each socket: the last one clears up. */
  #letGo(): void {
    for (const [url, fds] of this.#unwanted) this.#options.sockets.disclaim(url, fds);
    this.#unwanted.clear();
  }

  async #byName(sought: EndpointRequest, signal: AbortSignal): Promise<Offer> {
    const name = sought.endpointName;
    const found = await this.#endpoints({ name }, signal);
    const endpoint = found.list.find((entry) => entry.name === name);
    if (!endpoint) throw new NsmError({ kind: "endpoint-not-found", endpoint: name });
    if (this.#isExpired(endpoint)) {
      throw new NsmError({ kind: "endpoint-not-found", endpoint: name, why: "its registration has expired" });
    }
    if (!serves(endpoint, sought.networkService)) {
      const why = `it does not serve ${sought.networkService}`;
      throw new NsmError({ kind: "endpoint-not-found", endpoint: name, why });
    }
    return { payload: "", candidates: await this.#take([endpoint], found, signal) };
  }

  async #byService(sought: EndpointRequest, signal: AbortSignal): Promise<Offer> {
    const { networkService: name, payload, labels } = sought;
    const query = { networkService: { name, payload } };
    const services = await this.#ask(NetworkServiceRegistry.method.find, query, { signal });
    const service = services.answers
      .filter((answer) => !answer.deleted)
      .map((answer) => answer.networkService)
      .find((entry): entry is NetworkService => entry?.name === name);
    if (!service) throw new NsmError({ kind: "service-not-found", service: name });
    const found = await this.#endpoints({ networkServiceNames: [service.name] }, signal);
    const alive = found.list.filter((endpoint) => !this.#isExpired(endpoint));
    const fitting = matchEndpoints(labels, service, alive);
    if (fitting.length === 0) throw new NsmError({ kind: "no-candidates" });
    const candidates = await this.#take(this.#inTurn(service.name, fitting), found, signal);
    return { payload: service.payload, candidates };
  }

  async #endpoints(
    networkServiceEndpoint: { readonly name?: string; readonly networkServiceNames?: string[] },
    signal: AbortSignal,
  ): Promise<Found> {
    const query = { networkServiceEndpoint };
    const { answers, fds } = await this.#ask(NetworkServiceEndpointRegistry.method.find, query, {
      signal,
      // Noted as it comes: the list may end in an error, and nothing of it may fit.
      heard: ({ networkServiceEndpoint: entry }, cameBy) => entry && this.#unwanted.set(entry.url, cameBy),
    });
    // The latest word about a name counts: a list may repeat an endpoint, or take it back.
    const byName = new Map<string, NetworkServiceEndpoint>();
    for (const { networkServiceEndpoint: entry, deleted } of answers) {
      if (!entry) continue;
      if (deleted) byName.delete(entry.name);
      else byName.set(entry.name, entry);
    }
    return { list: [...byName.values()], fds };
  }

  /** Reads the whole list; an error in the middle is an error, not the list's end (W36). */
  async #ask<I extends DescMessage, O extends DescMessage>(
    method: DescMethodServerStreaming<I, O>,
    query: MessageInitShape<I>,
    { signal, heard }: Listening<MessageShape<O>>,
  ): Promise<{ answers: readonly MessageShape<O>[]; fds: PassedFds | undefined }> {
    const stream = this.#options.caller.stream(this.#options.target, method, query, { signal });
    // Its failure is also the stream's, and is seen there.
    const connection = stream.connection.catch(() => undefined);
    const answers: MessageShape<O>[] = [];
    for await (const answer of stream) {
      answers.push(answer);
      const fds = (await connection)?.fds;
      if (fds) heard?.(answer, fds);
      if (answers.length > ANSWER_LIMIT) {
        stream.cancel();
        throw new NsmError({ kind: "registry", problem: `it lists more than ${ANSWER_LIMIT} entries` });
      }
    }
    return { answers, fds: (await connection)?.fds };
  }

  #inTurn<T>(service: string, candidates: readonly T[]): readonly T[] {
    const turn = this.#turns.get(service) ?? 0;
    // Set again, so that the one that was requested longest ago is the first.
    this.#turns.delete(service);
    this.#turns.set(service, turn + 1);
    const [oldest] = this.#turns.keys();
    if (oldest !== undefined && this.#turns.size > MOST_TURNS) this.#turns.delete(oldest);
    const first = turn % candidates.length;
    return [...candidates.slice(first), ...candidates.slice(0, first)];
  }

  /** A candidate whose socket did not come is left out: the others may still serve. */
  async #take(
    endpoints: readonly NetworkServiceEndpoint[],
    found: Found,
    signal: AbortSignal,
  ): Promise<readonly Candidate[]> {
    const { sockets } = this.#options;
    const candidates: Candidate[] = [];
    let missing: unknown;
    for (const { name, url } of endpoints.slice(0, CANDIDATE_LIMIT)) {
      try {
        candidates.push({ name, socket: await sockets.acquire(url, found.fds, signal) });
      } catch (error) {
        missing = error;
      }
    }
    if (candidates.length === 0) throw missing;
    return candidates;
  }

  #isExpired(endpoint: NetworkServiceEndpoint): boolean {
    return endpoint.expirationTime !== undefined && timestampMs(endpoint.expirationTime) <= this.#options.clock.now();
  }
}

/** An endpoint that does not list its services is taken at its name; a domain behind `@` is not part of the name. */
function serves(endpoint: NetworkServiceEndpoint, service: string): boolean {
  const names = endpoint.networkServiceNames.map(withoutDomain);
  return service === "" || names.length === 0 || names.includes(withoutDomain(service));
}

function withoutDomain(name: string): string {
  return name.split("@", 1)[0] ?? "";
}
