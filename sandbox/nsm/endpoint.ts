import { clone, create } from "@bufbuild/protobuf";
import { EmptySchema } from "@bufbuild/protobuf/wkt";
import type { Clock } from "../../src/async/index.ts";
import { type Connection, ConnectionSchema, State } from "../../src/gen/connection_pb.ts";
import { NetworkService, type NetworkServiceRequest } from "../../src/gen/networkservice_pb.ts";
import type { BorrowedFd, Fd } from "../../src/kernel/index.ts";
import {
  type Call,
  RpcClient,
  RpcError,
  type RpcHandler,
  type RpcServer,
  serveRpc,
  type Transport,
  unaryHandler,
} from "../../src/rpc/index.ts";
import type { Log } from "../../src/telemetry/index.ts";
import type { Actor } from "./actor.ts";
import { type DesiredContext, describeContext } from "./endpoint-context.ts";
import { Enlistment } from "./enlist.ts";
import { enterPath } from "./hop.ts";
import { createIpam, type Ipam } from "./ipam.ts";
import { MonitorBoard } from "./monitor-board.ts";

export interface EndpointOptions {
  readonly name: string;
  readonly networkService: string;
  /** "ETHERNET" by default. */
  readonly payload?: string;
  readonly labels?: Readonly<Record<string, string>>;
  /** Prefixes that addresses come from: "172.16.1.0/24", "2001:db8::/120". */
  readonly prefixes: readonly string[];
  readonly context?: DesiredContext | ContextOf;
  readonly socketPath: string;
  /** URL of the node's NSMgr. */
  readonly registryUrl: string;
  readonly actor: Actor;
  /** How calls travel; sockets by default. */
  readonly transport?: Transport | undefined;
  /** Ids of its own; random ones by default. */
  readonly newId?: (() => string) | undefined;
  readonly log: Log;
  readonly clock: Clock;
}

/** What an endpoint wants of one connection; asked at every Request, so the same connection should get the same. */
export type ContextOf = (connection: Connection) => DesiredContext;

/** How an endpoint can be made to misbehave; change them at any time. */
export interface EndpointKnobs {
  /** Waits so long before each answer, in ms. */
  delayMs: number;
  /** Done before each answer to a Request: what happens on the node meanwhile. */
  meanwhile: (() => Promise<void>) | undefined;
  /** Done before each answer to a Close. */
  atClose: (() => Promise<void>) | undefined;
  /** Refuses so many Requests, counting down. */
  failTimes: number;
  /** Changes each answer to a Request last of all: an index out of range, another mechanism, addresses that are none. */
  alterReply: ((reply: Connection) => void) | undefined;
  /** Descriptors that leave with each answer; they stay the owner's. */
  fds: readonly BorrowedFd[];
}

/** A network service endpoint with the NOOP mechanism: it hands out addresses and leaves the link to the hardware. */
export class Endpoint {
  readonly name: string;
  /** Requests as they came in, the path already extended by this endpoint. */
  readonly requests: Connection[] = [];
  readonly closes: Connection[] = [];
  /** The traces that Requests belonged to: W3C's traceparent, empty where there was none. */
  readonly traceparents: string[] = [];
  readonly knobs: EndpointKnobs = {
    delayMs: 0,
    meanwhile: undefined,
    atClose: undefined,
    failTimes: 0,
    alterReply: undefined,
    fds: [],
  };
  /** Its monitor stream: `monitor.setState(id, State.DOWN)` reports to the forwarder that a connection is down. */
  readonly monitor = new MonitorBoard();
  readonly ipams: readonly Ipam[];
  readonly #options: EndpointOptions;
  readonly #client: RpcClient;
  readonly #enlistment: Enlistment;
  #desired: DesiredContext | ContextOf;
  #server: RpcServer | undefined;

  constructor(options: EndpointOptions) {
    const { actor, transport, log, clock, name, networkService, payload = "ETHERNET", labels = {} } = options;
    this.#options = options;
    this.name = name;
    this.ipams = options.prefixes.map(createIpam);
    this.#desired = options.context ?? {};
    this.#client = new RpcClient({
      transport,
      tls: actor.redialling,
      log,
      clock,
      dialTimeoutMs: 30_000,
      idleMs: 60_000,
      credentials: actor.headers,
    });
    const { registryUrl } = options;
    this.#enlistment = new Enlistment({
      client: this.#client,
      registryUrl,
      openSocket: () => this.#openSocket(),
      name,
      networkService,
      payload,
      labels,
      log,
      clock,
    });
  }

  /** Listens and registers; also after `die`. */
  async start(): Promise<void> {
    const { actor, transport, log, clock, socketPath } = this.#options;
    this.#server = await serveRpc({
      url: `unix://${socketPath}`,
      tls: actor.tls,
      transport,
      handlers: this.#handlers(),
      log,
      clock,
    });
    await this.enlist();
  }

  /** Registers again: the registry has forgotten it. */
  enlist(): Promise<void> {
    return this.#enlistment.enlist();
  }

  /** Other MAC, VLAN, MTU, routes … from the next Request on. */
  want(context: DesiredContext | ContextOf): void {
    this.#desired = context;
  }

  /** Dies without a word: connections break, its entry in the registry stays until it expires. */
  async die(): Promise<void> {
    this.#enlistment.stop();
    await this.#server?.stop(0);
    this.#server = undefined;
  }

  /** Leaves the registry and stops. */
  async close(): Promise<void> {
    await this.#enlistment.leave().catch(() => {}); // the registry may have gone before
    await this.die();
    await this.#client.close();
  }

  #handlers(): readonly RpcHandler[] {
    return [
      unaryHandler(NetworkService.method.request, (request, call) => this.#request(request, call)),
      unaryHandler(NetworkService.method.close, async (connection, call) => {
        await this.#close(connection, call);
        return create(EmptySchema);
      }),
      this.monitor.handler(),
    ];
  }

  async #request(request: NetworkServiceRequest, call: Call): Promise<Connection> {
    const { connection } = request;
    if (connection === undefined) throw new RpcError("INVALID_ARGUMENT", "a Request must have a connection");
    const leave = await enterPath(this.#hop(), connection, call);
    this.requests.push(clone(ConnectionSchema, connection));
    this.traceparents.push(call.metadata.get("traceparent")?.join() ?? "");
    await this.#misbehave(call.signal);
    const offered = connection.mechanism === undefined ? request.mechanismPreferences : [connection.mechanism];
    const noop = offered.find(({ type, cls }) => type === "NOOP" && cls === "LOCAL");
    if (noop === undefined) throw new RpcError("UNKNOWN", "cannot support any of the requested mechanism");
    connection.mechanism = noop;
    connection.networkServiceEndpointName = this.name;
    connection.payload = this.#options.payload ?? "ETHERNET";
    connection.state = State.UP;
    const desired = typeof this.#desired === "function" ? this.#desired(connection) : this.#desired;
    connection.context = describeContext(connection.context, { ipams: this.ipams, key: connection.id }, desired);
    this.monitor.put(connection);
    const reply = leave(connection);
    this.knobs.alterReply?.(reply);
    for (const fd of this.knobs.fds) call.sendFd(fd);
    return reply;
  }

  async #close(connection: Connection, call: Call): Promise<void> {
    await enterPath(this.#hop(), connection, call);
    await this.knobs.atClose?.();
    this.closes.push(clone(ConnectionSchema, connection));
    for (const ipam of this.ipams) ipam.release(connection.id);
    this.monitor.remove(connection.id);
  }

  async #misbehave(signal: AbortSignal): Promise<void> {
    if (this.knobs.delayMs > 0) await this.#options.clock.sleep(this.knobs.delayMs, signal);
    await this.knobs.meanwhile?.();
    if (this.knobs.failTimes === 0) return;
    this.knobs.failTimes -= 1;
    throw new RpcError("UNAVAILABLE", `${this.name} was set to fail`);
  }

  #openSocket(): Fd {
    if (!this.#server) throw new Error(`${this.name} does not listen`);
    return this.#server.openSocket();
  }

  #hop() {
    const { name, actor, clock, newId } = this.#options;
    return { name, actor, clock, newId };
  }
}

/** A MAC of its own for each connection, and a VLAN. */
export function macPerConnection(vlanTag: number): ContextOf {
  const macs = new Map<string, string>();
  return ({ id }) => {
    const srcMac = macs.get(id) ?? `0a:55:44:33:22:${(macs.size + 1).toString(16).padStart(2, "0")}`;
    macs.set(id, srcMac);
    return { ethernet: { srcMac, vlanTag } };
  };
}
