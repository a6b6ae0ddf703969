import type { Clock } from "../../src/async/index.ts";
import { SpiffeWorkloadAPI } from "../../src/gen/workload_pb.ts";
import {
  type Call,
  RpcError,
  type RpcHandler,
  type RpcServer,
  serveRpc,
  streamHandler,
  type Transport,
} from "../../src/rpc/index.ts";
import type { Log } from "../../src/telemetry/index.ts";
import { Feed } from "../nsm/feed.ts";
import { type Spire, trustDomainOf } from "./spire.ts";

export interface WorkloadSocketOptions {
  readonly spire: Spire;
  readonly socketPath: string;
  /** Who the callers on this socket are: a real agent finds out by their pid, this one by the socket they use. */
  readonly spiffeIds: readonly string[];
  /** How calls travel; sockets by default. */
  readonly transport?: Transport | undefined;
  readonly log: Log;
  readonly clock: Clock;
}

/** One SPIFFE Workload API socket. It can withhold identities, die and come back on the same path. */
export class WorkloadSocket {
  /** For SPIFFE_ENDPOINT_SOCKET. */
  readonly url: string;
  /** How many answers with SVIDs were handed out since the beginning. */
  handedOut = 0;
  readonly #options: WorkloadSocketOptions;
  readonly #listeners = new Set<() => void>();
  readonly #unsubscribe: () => void;
  #spiffeIds: readonly string[];
  #server: RpcServer | undefined;

  constructor(options: WorkloadSocketOptions) {
    this.#options = options;
    this.#spiffeIds = options.spiffeIds;
    this.url = `unix://${options.socketPath}`;
    this.#unsubscribe = options.spire.onChange(() => this.#notify());
  }

  async start(): Promise<void> {
    const { transport, log, clock } = this.#options;
    this.#server = await serveRpc({ url: this.url, transport, handlers: this.#handlers(), log, clock });
  }

  /** The agent dies; `start` brings it back. */
  async stop(): Promise<void> {
    await this.#server?.stop(0);
    this.#server = undefined;
  }

  /** Changes who the callers are. None: no identity is issued, which the API answers with PERMISSION_DENIED. */
  issue(...spiffeIds: readonly string[]): void {
    this.#spiffeIds = spiffeIds;
    this.#notify();
  }

  async close(): Promise<void> {
    this.#unsubscribe();
    await this.stop();
  }

  #notify(): void {
    for (const listener of [...this.#listeners]) listener();
  }

  #handlers(): readonly RpcHandler[] {
    const { fetchX509SVID, fetchX509Bundles } = SpiffeWorkloadAPI.method;
    return [
      streamHandler(fetchX509SVID, (_request, call) => this.#follow(call, () => this.#svidResponse())),
      streamHandler(fetchX509Bundles, (_request, call) =>
        this.#follow(call, () => ({ crl: [], bundles: this.#bundles() })),
      ),
    ];
  }

  /** The answer now, and again after every change, until the caller goes. */
  async *#follow<T>(call: Call, answer: () => T): AsyncGenerator<T> {
    if (call.metadata.get("workload.spiffe.io")?.at(-1) !== "true") {
      throw new RpcError("INVALID_ARGUMENT", "security header missing from request"); // keeps browsers out
    }
    const feed = new Feed<true>(call.signal);
    const wake = () => feed.push(true);
    this.#listeners.add(wake);
    try {
      wake();
      for await (const _ of feed) {
        if (this.#spiffeIds.length === 0) throw new RpcError("PERMISSION_DENIED", "no identity issued");
        yield answer();
      }
    } finally {
      this.#listeners.delete(wake);
    }
  }

  #svidResponse() {
    const { spire } = this.#options;
    const bundles = this.#bundles();
    const svids = this.#spiffeIds.map((spiffeId) => {
      const { certChainDer, keyDer } = spire.svid(spiffeId);
      const bundle = bundles[`spiffe://${trustDomainOf(spiffeId)}`] ?? new Uint8Array();
      return { spiffeId, x509Svid: certChainDer, x509SvidKey: keyDer, bundle };
    });
    this.handedOut += 1;
    const { [`spiffe://${spire.trustDomain}`]: _own, ...federatedBundles } = bundles;
    return { svids, crl: [], federatedBundles };
  }

  #bundles(): Record<string, Uint8Array> {
    const roots = [...this.#options.spire.bundles()];
    return Object.fromEntries(roots.map(([domain, ders]) => [`spiffe://${domain}`, Buffer.concat(ders)]));
  }
}
