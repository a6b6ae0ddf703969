import { clone, create } from "@bufbuild/protobuf";
import { EmptySchema } from "@bufbuild/protobuf/wkt";
import { type Connection, ConnectionSchema } from "../../src/gen/connection_pb.ts";
import {
  NetworkService,
  type NetworkServiceRequest,
  NetworkServiceRequestSchema,
} from "../../src/gen/networkservice_pb.ts";
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

/** The NSMgr's part in a connection: chooses a forwarder, hands the Request and its descriptors on, and the answer back. */
export class ForwardingService {
  readonly calls: ForwardedCall[] = [];
  readonly #options: ForwardingOptions;
  /** By the connection's id at this NSMgr. */
  readonly #files = new Map<string, PassedFiles>();

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
    for (const { endpoint } of this.#forwardersFor(connection)) {
      try {
        this.calls.push({ kind: "request", forwarder: endpoint.name, connection: clone(ConnectionSchema, connection) });
        const { response, connection: onward } = await this.#options.client.call(
          endpoint.url,
          NetworkService.method.request,
          create(NetworkServiceRequestSchema, { ...request, connection }),
          { signal: call.signal, timeoutMs: call.deadlineMs ?? CALL_TIMEOUT_MS, fds, metadata: traceOf(call) },
        );
        await checkNextToken(this.#options.hop, response, onward.peer);
        for (const fd of fds) call.sendFd(fd);
        return leave(response);
      } catch (error) {
        if (call.signal.aborted) throw error;
        failures.push(`${endpoint.name}: ${error instanceof Error ? error.message : String(error)}`);
        if (error instanceof RpcError && error.code === "PERMISSION_DENIED") throw error;
      }
    }
    if (failures.length === 0) throw new RpcError("NOT_FOUND", "no forwarder is registered that fits");
    throw new RpcError("UNKNOWN", `all forwarders have failed: ${failures.join("; ")}`);
  }

  async #close(connection: Connection, call: Call): Promise<void> {
    await enterPath(this.#options.hop, connection, call);
    const files = this.#files.get(connection.id) ?? new PassedFiles();
    try {
      const fds = await files.receive(mechanismsOf(connection, []), call.connection, call.signal);
      const [forwarder] = this.#forwardersFor(connection);
      if (forwarder === undefined) throw new RpcError("NOT_FOUND", "no forwarder is registered that fits");
      const { name, url } = forwarder.endpoint;
      this.calls.push({ kind: "close", forwarder: name, connection: clone(ConnectionSchema, connection) });
      const options = { signal: call.signal, timeoutMs: call.deadlineMs ?? CALL_TIMEOUT_MS, fds };
      await this.#options.client.call(url, NetworkService.method.close, connection, options);
    } finally {
      files.close(call.connection);
      this.#files.delete(connection.id);
    }
  }

  /**
   * The forwarder that the path names already, else every one whose labels carry what the first match of the network
   * service asks for (`p2p:true` when it asks for nothing).
   */
  #forwardersFor(connection: Connection): readonly EndpointEntry[] {
    const { registry, forwarderService } = this.#options;
    const path = connection.path;
    const named = registry.endpoints.get(path?.pathSegments[path.index + 1]?.name ?? "");
    if (named !== undefined) return [named];
    const match = registry.services
      .get(connection.networkService)
      ?.matches.find(({ sourceSelector }) => hasLabels(connection.labels, sourceSelector));
    const desired = match?.metadata?.labels ?? { p2p: "true" };
    return registry.endpoints
      .all()
      .filter(({ endpoint }) => endpoint.networkServiceNames.includes(forwarderService))
      .filter(({ endpoint }) => hasLabels(endpoint.networkServiceLabels[forwarderService]?.labels ?? {}, desired));
  }
}

/** The trace that the caller belongs to, handed on. */
function traceOf(call: Call): Readonly<Record<string, readonly string[]>> {
  const traceparent = call.metadata.get("traceparent");
  return traceparent === undefined ? {} : { traceparent };
}
