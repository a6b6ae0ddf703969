import type { DescMessage, DescMethodUnary, MessageInitShape, MessageShape } from "@bufbuild/protobuf";
import type { Clock } from "../../src/async/index.ts";
import { RpcClient, type RpcHandler, type RpcServer, serveRpc, type Transport } from "../../src/rpc/index.ts";
import type { Log } from "../../src/telemetry/index.ts";
import type { Actor } from "./actor.ts";
import { type ForwardedCall, ForwardingService } from "./forwarding.ts";
import { MonitorRecord } from "./monitor-record.ts";
import { Registry } from "./registry.ts";
import { registryHandlers } from "./registry-service.ts";

export interface NsmgrOptions {
  /** Name of its path segment. */
  readonly name: string;
  /** Where its socket stands. */
  readonly socketPath: string;
  readonly actor: Actor;
  /** The network service under which forwarders register; "forwarder" by default, as today's NSMgr has it. */
  readonly forwarderService?: string;
  /** "sandbox-node" by default. */
  readonly nodeName?: string;
  /** Registrations expire after this, in ms; a minute by default. Who is late on a busy machine is kept for a minute all the same. */
  readonly expiryMs?: number;
  /** How calls travel; sockets by default. */
  readonly transport?: Transport | undefined;
  /** Ids of its own; random ones by default. */
  readonly newId?: (() => string) | undefined;
  readonly log: Log;
  readonly clock: Clock;
}

const EXPIRY_MS = 60_000;
const CALL_TIMEOUT_MS = 120_000;

/**
 * A Network Service Manager of one node, with the registry in memory. It listens on a unix socket, keeps what
 * forwarders and endpoints register there, and sends each client's Request on to a forwarder.
 */
export class Nsmgr {
  readonly registry: Registry;
  readonly name: string;
  readonly url: string;
  readonly #options: NsmgrOptions;
  readonly #handlers: readonly RpcHandler[];
  readonly #forwarding: ForwardingService;
  readonly #client: RpcClient;
  readonly #records = new Set<MonitorRecord>();
  #server: RpcServer | undefined;

  constructor(options: NsmgrOptions) {
    const { actor, transport, newId, clock, log, name } = options;
    this.#options = options;
    this.name = name;
    this.url = `unix://${options.socketPath}`;
    this.registry = new Registry(clock);
    this.#client = new RpcClient({
      transport,
      tls: actor.tls,
      log,
      clock,
      dialTimeoutMs: 30_000,
      idleMs: 60_000,
      credentials: actor.headers,
    });
    this.#forwarding = new ForwardingService({
      hop: { name, actor, clock, newId },
      registry: this.registry,
      client: this.#client,
      forwarderService: options.forwarderService ?? "forwarder",
      nodeName: options.nodeName ?? "sandbox-node",
    });
    const { expiryMs = EXPIRY_MS } = options;
    this.#handlers = [
      ...registryHandlers({ registry: this.registry, actor, clock, expiryMs, keptMs: EXPIRY_MS }),
      ...this.#forwarding.handlers(),
    ];
  }

  /** Requests and Closes that were sent on to a forwarder, in the order they came. */
  get forwarded(): readonly ForwardedCall[] {
    return this.#forwarding.calls;
  }

  /** See `ForwardingService`. */
  dialsFormer(): void {
    this.#forwarding.dialsFormer = true;
  }

  /** See `ForwardingService`. */
  async timeUp(): Promise<void> {
    await this.#forwarding.timeUp();
  }

  /** Starts to listen; also after `stop`, on the same path. */
  async start(): Promise<void> {
    const { actor, transport, log, clock } = this.#options;
    const handlers = this.#handlers;
    this.#server = await serveRpc({ url: this.url, tls: actor.tls, transport, handlers, log, clock });
  }

  /** Breaks every connection, as a dying NSMgr does. `forget`: the registry is lost with it. */
  async stop(options: { readonly forget?: boolean } = {}): Promise<void> {
    for (const record of this.#records) record.stop();
    this.#records.clear();
    await this.#server?.stop(0);
    this.#server = undefined;
    if (options.forget === true) this.registry.clear();
    if (options.forget === true) this.#forwarding.forget();
  }

  /** Watches the connections of a registered forwarder that this NSMgr asked for. */
  watch(forwarderName: string): MonitorRecord {
    const target = this.#urlOf(forwarderName);
    const record = new MonitorRecord({
      client: this.#client,
      target,
      segments: [{ name: this.name }],
      clock: this.#options.clock,
    });
    this.#records.add(record);
    return record;
  }

  /** Calls a registered endpoint, a forwarder for example, over the socket that it registered. */
  async query<I extends DescMessage, O extends DescMessage>(
    name: string,
    method: DescMethodUnary<I, O>,
    request: MessageInitShape<I>,
  ): Promise<MessageShape<O>> {
    return (await this.#client.call(this.#urlOf(name), method, request, { timeoutMs: CALL_TIMEOUT_MS })).response;
  }

  #urlOf(name: string): string {
    const entry = this.registry.endpoints.get(name);
    if (entry === undefined) throw new Error(`Cannot reach ${name}: it is not registered`);
    return entry.endpoint.url;
  }

  /** Stops for good and lets go of every descriptor. */
  async close(): Promise<void> {
    await this.stop({ forget: true });
    this.#forwarding.close();
    await this.#client.close();
  }
}
