import { clone, create } from "@bufbuild/protobuf";
import { EmptySchema } from "@bufbuild/protobuf/wkt";
import { type Connection, ConnectionSchema, State } from "../../src/gen/connection_pb.ts";
import {
  NetworkService,
  type NetworkServiceRequest,
  NetworkServiceRequestSchema,
} from "../../src/gen/networkservice_pb.ts";
import type { Fd } from "../../src/kernel/index.ts";
import { type Call, type RpcClient, RpcError, type RpcHandler, unaryHandler } from "../../src/rpc/index.ts";
import { checkNextToken, enterPath, type Hop } from "./hop.ts";
import { mechanismsOf, PassedFiles } from "./passed-files.ts";
import { type EndpointEntry, hasLabels, type Registry } from "./registry.ts";

/** One call that the NSMgr sent on. */
export interface ForwardedCall {
  readonly kind: "request" | "close";
  readonly forwarder: string;
  /** As sent to the forwarder. */
  readonly connection: Connection;
}

export interface ForwardingOptions {
  readonly hop: Hop;
  readonly registry: Registry;
  readonly client: RpcClient;
  readonly forwarderService: string;
  /** Becomes the label `nodeName` of every connection that has none. */
  readonly nodeName: string;
}

/** Deadline of a call to the forwarder when the client named none, in ms. */
const CALL_TIMEOUT_MS = 120_000;

/** What the NSMgr remembers of a connection (sdk: common/begin, common/discoverforwarder, common/dial). */
interface Known {
  /** By which name it found the forwarder: that name it asks the registry for, until the client reselects. */
  readonly forwarder: string;
  /** Where it called it last; undefined once that could not be dialled any more. */
  url: string | undefined;
  /** As it was answered, at the NSMgr's own place. */
  readonly connection: Connection;
}

/** The NSMgr's part in a connection: chooses a forwarder, hands the Request and its descriptors on, and the answer back. */
export class ForwardingService {
  readonly calls: ForwardedCall[] = [];
  /**
   * As the SDK has it: where a forwarder's socket is another one than at the last call, the former one is dialled first and gets a Close, or
   * the Request fails when nothing answers there. A client of the NSMgr asks again then; most tests have none that does.
   */
  dialsFormer = false;
  readonly #options: ForwardingOptions;
  /** By the connection's id at this NSMgr. */
  readonly #files = new Map<string, PassedFiles>();
  readonly #known = new Map<string, Known>();

  constructor(options: ForwardingOptions) {
    this.#options = options;
  }

  handlers(): readonly RpcHandler[] {
    return [
      unaryHandler(NetworkService.method.request, (request, call) => this.#request(request, call)),
      unaryHandler(NetworkService.method.close, async (connection, call) => {
        await this.#close(connection, call);
        return create(EmptySchema);
      }),
    ];
  }

  /** Lets go of every descriptor. */
  close(): void {
    for (const files of this.#files.values()) files.close(undefined);
    this.#files.clear();
  }

  /** What an NSMgr that died knew of connections. */
  forget(): void {
    this.#known.clear();
  }

  /** The clients' tokens have ended: it closes every connection where it can reach the forwarder, and knows none any more. */
  async timeUp(): Promise<void> {
    const known = [...this.#known.values()];
    this.#known.clear();
    for (const { forwarder, connection } of known) {
      const target = this.#options.registry.endpoints.get(forwarder)?.endpoint.url;
      const closing = clone(ConnectionSchema, connection);
      if (target) await this.#options.client.call(target, NetworkService.method.close, closing).catch(() => {});
    }
  }

  async #request(request: NetworkServiceRequest, call: Call): Promise<Connection> {
    const { connection } = request;
    if (connection === undefined) throw new RpcError("INVALID_ARGUMENT", "a Request must have a connection");
    const leave = await enterPath(this.#options.hop, connection, call);
    connection.labels["nodeName"] ??= this.#options.nodeName;
    const files = this.#files.get(connection.id) ?? new PassedFiles();
    this.#files.set(connection.id, files);
    const fds = await files.receive(
      mechanismsOf(connection, request.mechanismPreferences),
      call.connection,
      call.signal,
    );
    const failures: string[] = [];
    const known = this.#known.get(connection.id);
    const name = isReselecting(connection) ? "" : (known?.forwarder ?? "");
    const desired = create(NetworkServiceRequestSchema, { ...request, connection });
    for (const { endpoint } of this.#candidatesFor(connection, name)) {
      try {
        await this.#leaveFormer(known, endpoint.url, connection);
        const response = await this.#requestFrom(endpoint, desired, { call, fds });
        const kept = {
          forwarder: name || endpoint.name,
          url: endpoint.url,
          connection: clone(ConnectionSchema, response),
        };
        this.#known.set(connection.id, kept);
        for (const fd of fds) call.sendFd(fd);
        return leave(response);
      } catch (error) {
        if (call.signal.aborted) throw error;
        failures.push(`${endpoint.name}: ${error instanceof Error ? error.message : String(error)}`);
        if (error instanceof RpcError && error.code === "PERMISSION_DENIED") throw error;
      }
    }
    throw new RpcError("UNKNOWN", `all forwarders have failed: ${failures.join("; ")}`);
  }

  async #requestFrom(
    { name, url }: EndpointEntry["endpoint"],
    request: NetworkServiceRequest,
    { call, fds }: { readonly call: Call; readonly fds: readonly Fd[] },
  ): Promise<Connection> {
    const { client, hop } = this.#options;
    const connection = clone(ConnectionSchema, request.connection ?? create(ConnectionSchema));
    this.calls.push({ kind: "request", forwarder: name, connection });
    const options = {
      signal: call.signal,
      timeoutMs: call.deadlineMs ?? CALL_TIMEOUT_MS,
      fds,
      metadata: traceOf(call),
    };
    const { response, connection: onward } = await client.call(url, NetworkService.method.request, request, options);
    await checkNextToken(hop, response, onward.peer);
    return response;
  }

  async #leaveFormer(known: Known | undefined, url: string, connection: Connection): Promise<void> {
    if (!this.dialsFormer || known?.url === undefined || known.url === url) return;
    const former = known.url;
    known.url = undefined;
    try {
      await this.#options.client.call(former, NetworkService.method.close, connection);
    } catch (error) {
      if (error instanceof RpcError && error.code === "UNAVAILABLE") throw error;
    }
  }

  async #close(connection: Connection, call: Call): Promise<void> {
    await enterPath(this.#options.hop, connection, call);
    const files = this.#files.get(connection.id) ?? new PassedFiles();
    const known = this.#known.get(connection.id);
    this.#known.delete(connection.id);
    try {
      const fds = await files.receive(mechanismsOf(connection, []), call.connection, call.signal);
      const { name, url } = this.#forwarderToClose(connection, known);
      this.calls.push({ kind: "close", forwarder: name, connection: clone(ConnectionSchema, connection) });
      const options = { signal: call.signal, timeoutMs: call.deadlineMs ?? CALL_TIMEOUT_MS, fds };
      await this.#options.client.call(url, NetworkService.method.close, connection, options);
    } finally {
      files.close(call.connection);
      this.#files.delete(connection.id);
    }
  }

  /** By the name that is remembered, else by that of the path. One that is not registered any more was where it was called last. */
  #forwarderToClose(connection: Connection, known: Known | undefined): { readonly name: string; readonly url: string } {
    const { registry } = this.#options;
    const { path } = connection;
    const name = known?.forwarder ?? path?.pathSegments[path.index + 1]?.name ?? "";
    const named = registry.endpoints.get(name)?.endpoint;
    if (named) return named;
    if (known?.url !== undefined) return { name, url: known.url };
    const [first] = this.#candidatesFor(connection, "");
    return (first as EndpointEntry).endpoint;
  }

  /**
   * Every forwarder of that name, or of any where none is remembered, whose labels carry what the first match of the network service asks
   * for (`p2p:true` when it asks for nothing); that of the path first.
   * @throws {RpcError} when there is none.
   */
  #candidatesFor(connection: Connection, name: string): readonly EndpointEntry[] {
    const { registry, forwarderService } = this.#options;
    const { path } = connection;
    const match = registry.services
      .get(connection.networkService)
      ?.matches.find(({ sourceSelector }) => hasLabels(connection.labels, sourceSelector));
    const desired = match?.metadata?.labels ?? { p2p: "true" };
    const candidates = registry.endpoints
      .all()
      .filter(({ endpoint }) => endpoint.networkServiceNames.includes(forwarderService))
      .filter(({ endpoint }) => name === "" || endpoint.name === name)
      .filter(({ endpoint }) => hasLabels(endpoint.networkServiceLabels[forwarderService]?.labels ?? {}, desired));
    if (candidates.length === 0) {
      throw new RpcError("UNKNOWN", name ? `forwarder ${name} is not available` : "no candidates found");
    }
    const last = isReselecting(connection) ? undefined : path?.pathSegments[path.index + 1]?.name;
    const isLast = ({ endpoint }: EndpointEntry) => endpoint.name === last;
    return [...candidates.filter(isLast), ...candidates.filter((one) => !isLast(one))];
  }
}

function isReselecting({ state }: Connection): boolean {
  return state === State.RESELECT_REQUESTED;
}

/** The trace that the caller belongs to, handed on. */
function traceOf(call: Call): Readonly<Record<string, readonly string[]>> {
  const traceparent = call.metadata.get("traceparent");
  return traceparent === undefined ? {} : { traceparent };
}
