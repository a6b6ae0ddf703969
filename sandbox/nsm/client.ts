import { randomUUID } from "node:crypto";
import { clone, create, type MessageInitShape } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import type { Clock } from "../../src/async/index.ts";
import { type Connection, ConnectionSchema, type PathSegment, PathSegmentSchema } from "../../src/gen/connection_pb.ts";
import {
  NetworkService,
  type NetworkServiceRequest,
  NetworkServiceRequestSchema,
} from "../../src/gen/networkservice_pb.ts";
import type { Fd, Netns } from "../../src/kernel/index.ts";
import { RpcClient, type Transport } from "../../src/rpc/index.ts";
import type { Log } from "../../src/telemetry/index.ts";
import type { Actor } from "./actor.ts";
import { inodeUrlOf } from "./passed-files.ts";

export interface ClientOptions {
  /** Name of its path segment: the pod's name. */
  readonly name: string;
  readonly actor: Actor;
  /** URL of the NSMgr; of the forwarder itself when `manager` is given. */
  readonly target: string;
  /** Plays the NSMgr too and calls the forwarder as one: the path starts with both segments, tokens chained. */
  readonly manager?: { readonly name: string; readonly actor: Actor };
  readonly networkService: string;
  readonly labels?: Readonly<Record<string, string>>;
  /** Pod network namespace that a KERNEL link is requested in; passed with each call. VFIO takes none. */
  readonly netns?: Netns;
  /** "KERNEL" by default. */
  readonly mechanism?: "KERNEL" | "VFIO" | "NOOP";
  /** Parameters of the mechanism: `name`, `tokenID`, `cgroupDir` …; `inodeURL` comes from `netns`. */
  readonly parameters?: Readonly<Record<string, string>>;
  /** Connections that are shared with others, as a manager's are; stays the caller's. Its own by default. */
  readonly rpc?: RpcClient;
  /** For each call that does not set its own; two minutes by default: a busy machine is slower than a node. */
  readonly timeoutMs?: number;
  /** How calls travel; sockets by default. */
  readonly transport?: Transport | undefined;
  /** Ids of its own; random ones by default. */
  readonly newId?: (() => string) | undefined;
  readonly log: Log;
  readonly clock: Clock;
}

/** What can be different about one call, above all for hostile ones. */
export interface CallChanges {
  /** Changes the message last of all, when ids and tokens are in their places. */
  readonly alter?: (request: NetworkServiceRequest) => void;
  /** Headers in place of the proper token and its expiry. */
  readonly headers?: Readonly<Record<string, string>>;
  /** The trace that this call belongs to: W3C's traceparent. */
  readonly traceparent?: string;
  /** Descriptors in place of the pod's network namespace. */
  readonly fds?: readonly Fd[];
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal;
}

/** A pod's NSM client with one connection: asks for it, refreshes it, closes it. */
export class Client {
  readonly #options: ClientOptions;
  readonly #rpc: RpcClient;
  /** Sends no token of its own. */
  readonly #bareRpc: RpcClient;
  readonly #ids: readonly string[];
  #connection: Connection | undefined;

  constructor(options: ClientOptions) {
    const { transport, newId = randomUUID, log, clock } = options;
    const caller = options.manager?.actor ?? options.actor;
    const tls = options.manager === undefined ? caller.redialling : caller.tls;
    const common = { tls, transport, log, clock, dialTimeoutMs: 30_000, idleMs: 60_000 };
    this.#options = options;
    this.#rpc = options.rpc ?? new RpcClient({ ...common, credentials: caller.headers });
    this.#bareRpc = new RpcClient(common);
    this.#ids = options.manager === undefined ? [newId()] : [newId(), newId()];
  }

  /** The connection as it was last answered. */
  get connection(): Connection | undefined {
    return this.#connection;
  }

  /** Asks for the connection; when there is one already, this is a refresh with what was answered last. */
  async request(changes: CallChanges = {}): Promise<Connection> {
    const request = this.proposal();
    changes.alter?.(request);
    this.#connection = await this.sendRequest(request, changes);
    return this.#connection;
  }

  /** Closes the connection. */
  async close(changes: CallChanges = {}): Promise<void> {
    const request = this.proposal();
    changes.alter?.(request);
    await this.sendClose(request.connection ?? {}, changes);
    this.#connection = undefined;
  }

  /** The Request that this client would send now. */
  proposal(): NetworkServiceRequest {
    const { networkService, labels = {}, mechanism = "KERNEL", netns, parameters = {} } = this.#options;
    const connection =
      this.#connection === undefined
        ? create(ConnectionSchema, { id: this.#ids.at(-1) ?? "", networkService, labels })
        : clone(ConnectionSchema, this.#connection);
    const own = this.#ownSegments();
    const beyond = connection.path?.pathSegments.slice(own.length) ?? [];
    connection.path = { $typeName: "connection.Path", index: own.length - 1, pathSegments: [...own, ...beyond] };
    const inode = netns === undefined || mechanism === "VFIO" ? {} : { inodeURL: inodeUrlOf(netns.id) };
    return create(NetworkServiceRequestSchema, {
      connection,
      mechanismPreferences: [{ cls: "LOCAL", type: mechanism, parameters: { ...inode, ...parameters } }],
    });
  }

  /** Sends any Request, well-formed or not, and answers with the reply. Remembers nothing. */
  async sendRequest(
    request: MessageInitShape<typeof NetworkServiceRequestSchema>,
    changes: CallChanges = {},
  ): Promise<Connection> {
    const { rpc, options } = this.#callWith(changes);
    return (await rpc.call(this.#options.target, NetworkService.method.request, request, options)).response;
  }

  /** Sends any Close. Forgets nothing. */
  async sendClose(connection: MessageInitShape<typeof ConnectionSchema>, changes: CallChanges = {}): Promise<void> {
    const { rpc, options } = this.#callWith(changes);
    await rpc.call(this.#options.target, NetworkService.method.close, connection, options);
  }

  /** Hangs up; the connection stays as it is at the other side. */
  async hangUp(): Promise<void> {
    if (this.#options.rpc === undefined) await this.#rpc.close();
    await this.#bareRpc.close();
  }

  #callWith(changes: CallChanges) {
    const { headers, traceparent, signal, timeoutMs = this.#options.timeoutMs ?? 120_000 } = changes;
    const { netns, mechanism } = this.#options;
    const fds = changes.fds ?? (netns === undefined || mechanism === "VFIO" ? [] : [netns.fd]);
    const options = {
      fds,
      timeoutMs,
      ...(signal === undefined ? {} : { signal }),
      metadata: { ...headers, ...(traceparent === undefined ? {} : { traceparent }) },
    };
    return { rpc: headers === undefined ? this.#rpc : this.#bareRpc, options };
  }

  /** The segments of the path that this client makes, each token for the next one: the newest tokens each time. */
  #ownSegments(): PathSegment[] {
    const { actor, name, manager } = this.#options;
    const [clientId = "", managerId = ""] = this.#ids;
    if (manager === undefined) return [create(PathSegmentSchema, { name, id: clientId })]; // the NSMgr fills in the token
    const toManager = actor.token(manager.actor.spiffeId);
    const toClient = manager.actor.token(actor.spiffeId);
    return [
      { name, id: clientId, ...toManager },
      { name: manager.name, id: managerId, ...toClient },
    ].map(({ expiresMs, ...segment }) =>
      create(PathSegmentSchema, { ...segment, expires: timestampFromMs(expiresMs) }),
    );
  }
}
