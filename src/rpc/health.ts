import { Latest } from "../async/index.ts";
import { Health, HealthCheckResponse_ServingStatus as ServingStatus } from "../gen/health_pb.ts";
import { type Call, type RpcHandler, streamHandler, unaryHandler } from "./handler.ts";
import type { MessageLimit } from "./message-limits.ts";
import { RpcError } from "./status.ts";

/** A probe is the name of a service. */
const probeLimit: MessageLimit = { bytes: 1024, elements: 16 };

/** What grpc.health.v1 says of the services of one server. The service "" is the whole server and serves from the start. */
export class RpcHealth {
  readonly #services = new Map<string, ServingStatus>([["", ServingStatus.SERVING]]);
  /** One for all services: a peer may watch names that are unknown, and they must take no memory. */
  readonly #changed = new Latest<string>();

  /** Says whether a service ("networkservice.NetworkService") serves. Watchers hear of each change. */
  set(service: string, serving: boolean): void {
    this.#services.set(service, serving ? ServingStatus.SERVING : ServingStatus.NOT_SERVING);
    this.#changed.set(service);
  }

  /** Says that nothing serves any more. */
  stopAll(): void {
    for (const service of [...this.#services.keys()]) this.set(service, false);
  }

  /** The methods to serve. */
  handlers(): RpcHandler[] {
    return [
      unaryHandler(
        Health.method.check,
        async ({ service }) => {
          const status = this.#services.get(service);
          if (status === undefined)
            throw new RpcError("NOT_FOUND", `There is no service ${JSON.stringify(service)} here`);
          return { status };
        },
        probeLimit,
      ),
      streamHandler(Health.method.watch, ({ service }, call) => this.#watch(service, call), probeLimit),
    ];
  }

  async *#watch(service: string, call: Call): AsyncGenerator<{ status: ServingStatus }> {
    let sent: ServingStatus | undefined;
    for (;;) {
      const status = this.#services.get(service) ?? ServingStatus.SERVICE_UNKNOWN;
      if (status === sent) await this.#changed.next(call.signal);
      else yield { status };
      sent = status;
    }
  }
}
