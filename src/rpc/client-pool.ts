import { type Clock, guarded, type Timer } from "../async/index.ts";
import type { Log } from "../telemetry/index.ts";
import { type Connection, openConnection, type TlsIdentity } from "./connection.ts";
import { Renewals } from "./renewals.ts";
import type { RpcLimits } from "./rpc-limits.ts";
import { RpcError } from "./status.ts";
import type { ClientConnection, Transport } from "./transport.ts";

interface PoolOptions {
  readonly transport: Transport;
  readonly tls?: TlsIdentity;
  readonly log: Log;
  readonly clock: Clock;
  readonly dialTimeoutMs: number;
  readonly idleMs: number;
  readonly limits: RpcLimits;
}

/** A connection that has been dialled. */
interface Dialled {
  readonly transport: ClientConnection;
  readonly connection: Connection;
}

/** The same for the time of one call. */
export interface Lease extends Dialled {
  /** The call is over. */
  release(): void;
}

interface Kept {
  readonly key: string;
  readonly dialling: Promise<Dialled>;
  open: Dialled | undefined;
  inUse: number;
  idle: Timer | undefined;
  mayRenew: () => boolean;
}

/** One kept connection per target. Loss, GOAWAY and a new certificate of ours each make the next call dial again. */
export class ConnectionPool {
  readonly #options: PoolOptions;
  readonly #byTarget = new Map<string, Kept>();
  /** Every connection that is open, retired ones too. */
  readonly #all = new Set<Dialled>();
  readonly #stopWatching: (() => void) | undefined;
  readonly #closing = new AbortController();
  readonly #renewals = new Renewals();

  constructor(options: PoolOptions) {
    this.#options = options;
    // A peer limits what it grants by the certificate that it saw at the handshake: an old one would shorten every lease.
    this.#stopWatching = options.tls?.onRotate(() => this.#retireAll());
  }

  /**
   * The connection to a target, dialled if there is none; calls at the same time share one dial.
   * @throws {RpcError} of the dial, or CANCELLED when the pool is closed; the signal's reason when the caller leaves first
   * (the dial continues for the others).
   */
  async lease(target: string, signal: AbortSignal): Promise<Lease> {
    this.#closing.signal.throwIfAborted();
    const key = this.#options.transport.identify(target);
    const kept = this.#byTarget.get(key) ?? this.#dial(target, key);
    kept.inUse++;
    kept.idle?.cancel();
    let isReleased = false;
    const release = () => {
      if (!isReleased) this.#release(kept);
      isReleased = true;
    };
    try {
      const open = kept.open ?? (await untilAborted(kept.dialling, signal));
      return { ...open, release };
    } catch (error) {
      release();
      throw error;
    }
  }

  async close(): Promise<void> {
    this.#closing.abort(new RpcError("CANCELLED", "the client was closed"));
    this.#stopWatching?.();
    const ends = [...this.#all].map(
      ({ connection }) =>
        new Promise<void>((resolve) => {
          const closed = guarded("abort", () => resolve());
          connection.closed.addEventListener("abort", closed, { once: true });
        }),
    );
    for (const { transport } of this.#all) transport.cut();
    await Promise.all(ends);
  }

  #dial(target: string, key: string): Kept {
    const { transport, tls, clock, dialTimeoutMs, limits, log } = this.#options;
    const dialling = transport.dial({
      target,
      tls,
      clock,
      timeoutMs: dialTimeoutMs,
      limits,
      signal: this.#closing.signal,
    });
    const kept: Kept = {
      key,
      dialling: dialling.then((made) => ({
        transport: made,
        connection: openConnection(made, () => this.#renew(kept)),
      })),
      open: undefined,
      inUse: 0,
      idle: undefined,
      mayRenew: () => false,
    };
    this.#byTarget.set(key, kept);
    kept.dialling.then(
      (open) => this.#opened(target, kept, open),
      (error: RpcError) => {
        log.debug("rpc-dial-failed", { target, error: error.message });
        this.#forget(kept);
      },
    );
    return kept;
  }

  #opened(target: string, kept: Kept, open: Dialled): void {
    const { log } = this.#options;
    const { transport, connection } = open;
    kept.open = open;
    kept.mayRenew = this.#renewals.opened(connection.peer);
    this.#all.add(open);
    log.debug("rpc-dialled", { target, connection: connection.id, peer: connection.peer?.spiffeId });
    const renewal = this.#renewal(kept, open);
    const leave = () => this.#retire(kept);
    const forget = () => {
      renewal?.cancel();
      this.#all.delete(open);
      this.#forget(kept);
      log.debug("rpc-connection-closed", { target, connection: connection.id });
    };
    onAbort(transport.farewell, leave, () => transport.cut());
    onAbort(transport.closed, forget, forget);
    if (this.#byTarget.get(kept.key) !== kept && kept.inUse === 0) transport.cut(); // retired while it was dialled
  }

  /**
   * What a peer's certificate allows is limited by its end, and its tokens are signed with the key of its newest. SPIRE
   * renews at half of a certificate's life; past that, half of what is left is waited. A new connection shows the new one.
   */
  #renewal(kept: Kept, { connection: { peer } }: Dialled): Timer | undefined {
    if (peer === undefined) return undefined;
    const { clock } = this.#options;
    const nowMs = clock.now();
    const halfLifeMs = (peer.notBeforeMs + peer.notAfterMs) / 2;
    const atMs = nowMs < halfLifeMs ? halfLifeMs : (nowMs + peer.notAfterMs) / 2;
    return clock.after(
      atMs - nowMs,
      guarded("timer", () => this.#retire(kept)),
    );
  }

  #renew(kept: Kept): boolean {
    if (!kept.mayRenew()) return false;
    this.#options.log.debug("rpc-peer-rotated", { peer: kept.open?.connection.peer?.spiffeId });
    this.#retire(kept);
    return true;
  }

  #release(kept: Kept): void {
    kept.inUse--;
    if (kept.inUse > 0) return;
    if (this.#byTarget.get(kept.key) !== kept) kept.open?.transport.cut();
    else
      kept.idle = this.#options.clock.after(
        this.#options.idleMs,
        guarded("timer", () => this.#retire(kept)),
      );
  }

  /** Gives it no further call; it closes when its calls are over. */
  #retire(kept: Kept): void {
    this.#forget(kept);
    if (kept.inUse === 0) kept.open?.transport.cut();
  }

  #retireAll(): void {
    for (const kept of [...this.#byTarget.values()]) this.#retire(kept);
  }

  /** A caller that has not waited for the dial has left an idle time behind. */
  #forget(kept: Kept): void {
    kept.idle?.cancel();
    if (this.#byTarget.get(kept.key) === kept) this.#byTarget.delete(kept.key);
  }
}

/** Calls back at the abort, or now where it has been. */
function onAbort(signal: AbortSignal, callback: () => void, onError: () => void): void {
  const aborted = guarded("abort", callback, onError);
  if (signal.aborted) aborted();
  else signal.addEventListener("abort", aborted, { once: true });
}

function untilAborted<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const aborted = guarded("abort", () => reject(signal.reason));
    if (signal.aborted) return aborted();
    signal.addEventListener("abort", aborted, { once: true });
    work.then(resolve, reject).finally(() => signal.removeEventListener("abort", aborted));
  });
}
