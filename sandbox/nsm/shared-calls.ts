import { type Clock, systemClock } from "../../src/async/index.ts";
import { RpcClient } from "../../src/rpc/index.ts";
import { type Log, silentLog } from "../../src/telemetry/index.ts";
import type { Actor } from "./actor.ts";

/** One connection to each peer for all that an actor calls, as a manager of the node has; for `ClientOptions.rpc`. The caller closes it. */
export function sharedCalls(actor: Actor, options: { readonly log?: Log; readonly clock?: Clock } = {}): RpcClient {
  const { log = silentLog, clock = systemClock } = options;
  return new RpcClient({
    tls: actor.tls,
    credentials: actor.headers,
    log,
    clock,
    dialTimeoutMs: 60_000,
    idleMs: 600_000,
  });
}
