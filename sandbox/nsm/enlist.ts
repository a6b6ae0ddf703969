import { create } from "@bufbuild/protobuf";
import { timestampMs } from "@bufbuild/protobuf/wkt";
import type { Clock, Timer } from "../../src/async/index.ts";
import {
  NetworkServiceEndpointRegistry,
  NetworkServiceEndpointSchema,
  NetworkServiceRegistry,
} from "../../src/gen/registry_pb.ts";
import type { Fd } from "../../src/kernel/index.ts";
import type { RpcClient } from "../../src/rpc/index.ts";
import type { Log } from "../../src/telemetry/index.ts";
import { inodeUrlOf } from "./passed-files.ts";

/** The first call's registry path: no hop has been on the way yet. */
const EMPTY_PATH = JSON.stringify({ Index: 0, PathSegments: null });

export interface EnlistOptions {
  readonly client: RpcClient;
  /** URL of the registry: the node's NSMgr. */
  readonly registryUrl: string;
  readonly name: string;
  /** A descriptor of the endpoint's socket, for the registry. */
  readonly openSocket: () => Fd;
  readonly networkService: string;
  readonly payload: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly log: Log;
  readonly clock: Clock;
}

/** After a refresh that failed. */
const RETRY_MS = 1000;

/** An endpoint's entry in the registry, registered again before it expires. */
export class Enlistment {
  readonly #options: EnlistOptions;
  #refresh: Timer | undefined;

  constructor(options: EnlistOptions) {
    this.#options = options;
  }

  /** Registers the network service and the endpoint; the socket goes along as a passed descriptor. */
  async enlist(): Promise<void> {
    this.stop();
    const { client, registryUrl, networkService, payload } = this.#options;
    const service = { name: networkService, payload };
    await client.call(registryUrl, NetworkServiceRegistry.method.register, service, { metadata: pathHeader() });
    await this.#registerEndpoint();
  }

  /** Takes the endpoint out of the registry. */
  async leave(): Promise<void> {
    const { client, registryUrl } = this.#options;
    this.stop();
    await client.call(registryUrl, NetworkServiceEndpointRegistry.method.unregister, this.#entry(""), {
      metadata: pathHeader(),
    });
  }

  /** Registers no more; the entry stays until it expires. */
  stop(): void {
    this.#refresh?.cancel();
    this.#refresh = undefined;
  }

  async #registerEndpoint(): Promise<void> {
    const { client, registryUrl, openSocket, clock } = this.#options;
    const socket = openSocket();
    try {
      const { response } = await client.call(
        registryUrl,
        NetworkServiceEndpointRegistry.method.register,
        this.#entry(inodeUrlOf(socket.id())),
        { fds: [socket], metadata: pathHeader() },
      );
      const leftMs = response.expirationTime ? timestampMs(response.expirationTime) - clock.now() : 60_000;
      this.#refreshAfter((leftMs * 2) / 3);
    } finally {
      socket.close();
    }
  }

  #refreshAfter(delayMs: number): void {
    const { clock, log, name } = this.#options;
    this.#refresh = clock.after(delayMs, () => {
      const refresh = this.#refresh;
      this.#registerEndpoint().catch((error: unknown) => {
        log.warn("endpoint-not-registered", { name, error: String(error) });
        if (this.#refresh === refresh) this.#refreshAfter(RETRY_MS);
      });
    });
  }

  #entry(url: string) {
    const { name, networkService, labels } = this.#options;
    return create(NetworkServiceEndpointSchema, {
      name,
      url,
      networkServiceNames: [networkService],
      networkServiceLabels: { [networkService]: { labels } },
    });
  }
}

function pathHeader() {
  return { path: EMPTY_PATH };
}
