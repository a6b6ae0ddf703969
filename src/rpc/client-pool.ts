import { type Clock, guarded, type Timer } from "../async/index.ts";
import { HELD_FDS_LIMIT } from "../kernel/index.ts";
import type { Log } from "../telemetry/index.ts";
import { type Connection, openConnection, type PeerIdentity, type TlsIdentity } from "./connection.ts";
import type { OwnedConnection } from "./owned-connections.ts";
import type { PeerLimits } from "./peer-limits.ts";
import { Renewals } from "./renewals.ts";
import type { RpcLimits } from "./rpc-limits.ts";
import { DialRefused, RpcError } from "./status.ts";
import type { ClientConnection, ServerTls, Transport } from "./transport.ts";

interface PoolOptions {
  readonly transport: Transport;
  readonly tls?: TlsIdentity;
  readonly serverTls?: () => Promise<ServerTls>;
  readonly log: Log;
  readonly clock: Clock;
  readonly dialTimeoutMs: number;
  readonly idleMs: number;
  readonly limits: RpcLimits;
  readonly checkPeer?: (target: string, peer: PeerIdentity | undefined) => void;
  readonly owners?: PeerLimits;
}

/** Connections without a call that are kept: a node's endpoints, and those of others. */
const MOST_IDLE = 128;

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
  /** In the share of whose call it was dialled for; undefined where it is in none. */
  readonly counted: OwnedConnection | undefined;
  readonly dialling: Promise<Dialled>;
  /** Gives up the dial. */
  readonly giveUp: AbortController;
  open: Dialled | undefined;
  inUse: number;
  idleSinceMs: number;
  idle: Timer | undefined;
  mayRenew: () => boolean;
}

/** One kept connection per target. Loss, GOAWAY and a new certificate of ours each make the next call dial again. */
export class ConnectionPool {
  readonly #options: PoolOptions;
  readonly #byTarget = new Map<string, Kept>();
  /** Every connection that is dialled or open, retired ones too. */
  readonly #all = new Set<Kept>();
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
   * @param owner in whose share a dial for it is; in none by default
   * @throws {RpcError} of the dial, or CANCELLED when the pool is closed; {DialRefused} when the owner has as many as it may; the
   * signal's reason when the caller leaves first (the dial continues for the others).
   */
  async lease(target: string, signal: AbortSignal, owner?: string): Promise<Lease> {
    this.#closing.signal.throwIfAborted();
    const key = this.#options.transport.identify(target);
    const kept = this.#byTarget.get(key) ?? this.#dial(target, key, owner);
    kept.inUse++;
    kept.idle?.cancel();
    let isReleased = false;
    const release = () => {
      if (!isReleased) this.#release(kept);
      isReleased = true;
    };
    try {
      const open = kept.open ?? (await untilAborted(kept.dialling, signal));
      this.#check(target, kept, open);
      return { ...open, release };
    } catch (error) {
      release();
      throw error;
    }
  }

  /** At each lease, not at the dial: a connection that was dialled by another name of the same listener is kept, too. */
  #check(target: string, kept: Kept, { connection: { peer } }: Dialled): void {
    try {
      this.#options.checkPeer?.(target, peer);
    } catch (error) {
      this.#retire(kept); // The next call is to find the peer that is there by then.
      const why = error instanceof Error ? error.message : String(error);
      throw new RpcError("UNAVAILABLE", `Cannot connect to ${target}: ${why}`, { cause: error });
    }
  }

  /** Gives no further call to the connection that is kept to a target. */
  leave(target: string): void {
    const kept = this.#byTarget.get(this.#options.transport.identify(target));
    if (kept) this.#retire(kept);
  }

  async close(): Promise<void> {
    const why = new RpcError("CANCELLED", "the client was closed");
    this.#closing.abort(why);
    this.#stopWatching?.();
    const all = [...this.#all];
    const ends = all.map(
      ({ open }) =>
        new Promise<void>((resolve) => {
          if (!open) return resolve();
          const closed = guarded("abort", () => resolve());
          open.connection.closed.addEventListener("abort", closed, { once: true });
        }),
    );
    for (const { open, giveUp } of all) {
      giveUp.abort(why);
      open?.transport.cut();
    }
    await Promise.all(ends);
  }

  #dial(target: string, key: string, owner: string | undefined): Kept {
    const { transport, tls, serverTls, clock, dialTimeoutMs, limits, log } = this.#options;
    const counted = this.#count(target, owner, () => kept);
    const giveUp = new AbortController();
    const { signal } = giveUp;
    const dialling = transport.dial({ target, tls, serverTls, clock, timeoutMs: dialTimeoutMs, limits, signal });
    const kept: Kept = {
      key,
      counted,
      giveUp,
      dialling: dialling.then((made) => ({
        transport: made,
        connection: openConnection(made, () => this.#renew(kept)),
      })),
      open: undefined,
      inUse: 0,
      idleSinceMs: clock.monotonicMs(),
      idle: undefined,
      mayRenew: () => false,
    };
    this.#byTarget.set(key, kept);
    this.#all.add(kept);
    kept.dialling.then(
      (open) => this.#opened(target, kept, open),
      (error: RpcError) => {
        log.debug("rpc-dial-failed", { target, error: error.message });
        this.#ended(kept);
      },
    );
    return kept;
  }

  /** @throws {DialRefused} */
  #count(target: string, owner: string | undefined, keptOf: () => Kept): OwnedConnection | undefined {
    const { owners } = this.#options;
    if (owners === undefined || owner === undefined) return undefined;
    const counted: OwnedConnection = {
      owner,
      get isIdle() {
        return keptOf().inUse === 0;
      },
      get idleSinceMs() {
        return keptOf().idleSinceMs;
      },
      end: () => this.#retire(keptOf()),
    };
    if (owners.addDial(counted)) return counted;
    const whose = owner || "a caller without identity";
    throw new DialRefused(
      `Cannot connect to ${target}: ${whose} has as many connections to endpoints as it may; try again when one of its calls has ended`,
    );
  }

  #ended(kept: Kept): void {
    this.#all.delete(kept);
    if (kept.counted) this.#options.owners?.removeDial(kept.counted);
    this.#forget(kept);
  }

  #opened(target: string, kept: Kept, open: Dialled): void {
    const { log, owners } = this.#options;
    const { transport, connection } = open;
    if (owners) transport.fds?.holdAtMost(HELD_FDS_LIMIT, owners.descriptorsOf(connection.peer?.spiffeId ?? ""));
    kept.open = open;
    kept.mayRenew = this.#renewals.opened(connection.peer);
    log.debug("rpc-dialled", { target, connection: connection.id, peer: connection.peer?.spiffeId });
    const renewal = this.#renewal(kept, open);
    const leave = () => this.#retire(kept);
    const forget = () => {
      renewal?.cancel();
      this.#ended(kept);
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
    kept.idleSinceMs = this.#options.clock.monotonicMs();
    if (this.#byTarget.get(kept.key) !== kept) {
      this.#end(kept);
      return;
    }
    // At the end: it was used last.
    this.#byTarget.delete(kept.key);
    this.#byTarget.set(kept.key, kept);
    kept.idle = this.#options.clock.after(
      this.#options.idleMs,
      guarded("timer", () => this.#retire(kept)),
    );
    this.#retireOldest();
  }

  /** A peer may name as many addresses as it likes, one after the other. */
  #retireOldest(): void {
    const idle = [...this.#byTarget.values()].filter(({ inUse }) => inUse === 0);
    const [oldest] = idle;
    if (idle.length > MOST_IDLE && oldest) this.#retire(oldest);
  }

  /** Gives it no further call; it closes when its calls are over. */
  #retire(kept: Kept): void {
    this.#forget(kept);
    if (kept.inUse === 0) this.#end(kept);
  }

  #end({ giveUp, open }: Kept): void {
    giveUp.abort(new RpcError("CANCELLED", "no call waits for the connection"));
    open?.transport.cut();
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
