import { type Clock, createBackoff, Latest, type Timer } from "../async/index.ts";
import type { PeerIdentity, TlsCredentials, TlsIdentity } from "../rpc/index.ts";
import type { Health, Log } from "../telemetry/index.ts";
import { IdentityError } from "./error.ts";
import { type IssuedToken, issueToken } from "./jwt.ts";
import type { Svid, X509Context } from "./read-svid.ts";
import { SvidExpiry } from "./svid-expiry.ts";
import { type TrustBundles, verifyPeerChain } from "./verify-peer-chain.ts";
import { checkWorkloadSocket, watchX509Context } from "./workload-api.ts";

export interface IdentityOptions {
  /** SPIFFE_ENDPOINT_SOCKET: "unix:///run/spire/sockets/agent.sock". */
  readonly endpointSocket: string;
  readonly clock: Clock;
  readonly log: Log;
  readonly health: Health;
}

/** For whom a token is, and until when its certificate is good. */
type TokenPeer = Pick<PeerIdentity, "spiffeId" | "notAfterMs">;

/** Who we are and whom we trust, kept up to date by the SPIRE agent. */
export interface Identity extends TlsIdentity {
  /** Our SVID; set anew at each rotation. */
  readonly current: Latest<Svid>;
  /** The first SVID, awaited for as long as it takes; rejects only with the signal's reason. */
  ready(signal?: AbortSignal): Promise<Svid>;
  /**
   * A token for one call to, or from, this peer, made anew each time.
   * @param shown what `credentials` gave for the connection with the peer: only that key proves anything to it. Our newest
   *   SVID is taken where there is none
   * @throws {IdentityError} kind "no-svid" or "expired"
   */
  issueToken(peer: TokenPeer | undefined, lifetimeMs: number, shown?: object): IssuedToken;
  /** Stops following the agent; the last SVID stays usable. */
  close(): Promise<void>;
}

/**
 * Starts to follow the Workload API. Comes back at once; `ready` waits. A lost agent is dialled again for ever, and the
 * last SVID and bundles are kept meanwhile.
 * @throws {IdentityError} kind "bad-socket"
 */
export function startIdentity(options: IdentityOptions): Identity {
  return new WorkloadIdentity(options);
}

const FIRST_REMINDER_MS = 1000;
const LONGEST_REMINDER_MS = 60_000;

class WorkloadIdentity implements Identity {
  readonly current = new Latest<Svid>();
  readonly #options: IdentityOptions;
  readonly #expiry: SvidExpiry;
  readonly #missing;
  readonly #stop = new AbortController();
  readonly #watching: Promise<void>;
  readonly #startedMs: number;
  readonly #reminders = createBackoff({ firstMs: FIRST_REMINDER_MS, limitMs: LONGEST_REMINDER_MS, random: () => 1 });
  #reminder: Timer | undefined;
  /** The SVIDs behind what connections have shown; each is gone with the last of them. */
  readonly #shown = new WeakMap<object, Svid>();
  #bundles: TrustBundles = new Map();
  /** Why the agent gives nothing at the moment; undefined while its stream lives. */
  #problem: string | undefined;

  constructor(options: IdentityOptions) {
    const { clock, log, health, endpointSocket } = options;
    const socket = checkWorkloadSocket(endpointSocket);
    this.#options = options;
    this.#startedMs = clock.monotonicMs();
    this.#expiry = new SvidExpiry(options);
    const awaited = `No X.509 SVID yet: waiting for the SPIRE agent at ${socket}`;
    this.#missing = health.condition("svid-missing", awaited);
    log.info("svid-awaited", { from: socket });
    this.#remind();
    const onContext = (context: X509Context) => this.#accept(context);
    const onProblem = (problem: string) => this.#note(problem);
    this.#watching = watchX509Context({ socket, clock, log, onContext, onProblem }, this.#stop.signal);
  }

  ready(signal?: AbortSignal): Promise<Svid> {
    return this.current.first(signal);
  }

  credentials(): TlsCredentials {
    const svid = this.#svid();
    const shown = { certChainPem: svid.certChainPem, keyPem: svid.keyPem };
    this.#shown.set(shown, svid);
    return shown;
  }

  verifyPeer(chainDer: readonly Buffer[]): PeerIdentity {
    const { id, leaf } = verifyPeerChain(chainDer, this.#bundles, this.#options.clock.now());
    return {
      spiffeId: id,
      certificatePem: leaf.x509.toString(),
      notBeforeMs: leaf.notBeforeMs,
      notAfterMs: leaf.notAfterMs,
    };
  }

  onRotate(listener: () => void): () => void {
    return this.current.onChange(listener);
  }

  issueToken(peer: TokenPeer | undefined, lifetimeMs: number, shown?: object): IssuedToken {
    const forPeer = peer === undefined ? {} : { audience: peer.spiffeId, peerNotAfterMs: peer.notAfterMs };
    const svid = (shown && this.#shown.get(shown)) ?? this.#svid();
    return issueToken(svid, { ...forPeer, lifetimeMs, nowMs: this.#options.clock.now() });
  }

  async close(): Promise<void> {
    this.#stop.abort();
    this.#reminder?.cancel();
    this.#expiry.stop();
    await this.#watching;
  }

  #svid(): Svid {
    const svid = this.current.value;
    if (svid !== undefined) return svid;
    const from = `the SPIRE agent at ${this.#options.endpointSocket}`;
    const waitsFor = this.#problem === undefined ? from : `${from}: ${this.#problem}`;
    throw new IdentityError({ kind: "no-svid", waitsFor });
  }

  #accept({ svid, bundles, brokenBundles }: X509Context): void {
    const { log } = this.#options;
    for (const broken of brokenBundles) log.warn("trust-bundle-unreadable", broken);
    if (this.#problem !== undefined) log.info("workload-api-back");
    this.#problem = undefined;
    this.#bundles = bundles;
    const before = this.current.value;
    if (before?.certChainPem === svid.certChainPem && before.keyPem === svid.keyPem) {
      log.info("trust-bundles-changed", { trustDomains: [...bundles.keys()] });
      return;
    }
    this.#tellNew(svid, before === undefined);
    this.#missing.clear();
    this.#reminder?.cancel();
    this.#expiry.watch(svid);
    this.current.set(svid);
  }

  #tellNew(svid: Svid, isFirst: boolean): void {
    const { clock, log } = this.#options;
    log.info(isFirst ? "svid-received" : "svid-rotated", {
      spiffeId: svid.id,
      serial: svid.serial,
      notAfter: new Date(svid.notAfterMs).toISOString(),
      trustDomains: [...this.#bundles.keys()],
      ...(isFirst ? { waitedMs: Math.round(clock.monotonicMs() - this.#startedMs) } : {}),
    });
  }

  /** Every try fails in the same words for as long as the agent is away: told once, then only as a reminder. */
  #note(problem: string): void {
    const { log, endpointSocket } = this.#options;
    const isNew = problem !== this.#problem;
    this.#problem = problem;
    log.debug("workload-api-failed", { from: endpointSocket, problem });
    if (this.current.value !== undefined) {
      if (isNew) log.warn("workload-api-lost", { from: endpointSocket, problem, kept: "the last SVID and bundles" });
      return;
    }
    this.#missing.raise(`No X.509 SVID yet from ${endpointSocket}: ${problem}`);
  }

  #remind(): void {
    const { clock, log, endpointSocket } = this.#options;
    this.#reminder = clock.after(this.#reminders.nextMs(), () => {
      const waitedMs = Math.round(clock.monotonicMs() - this.#startedMs);
      log.warn("svid-awaited", {
        from: endpointSocket,
        waitedMs,
        problem: this.#problem ?? "the agent has not answered",
      });
      this.#remind();
    });
  }
}
