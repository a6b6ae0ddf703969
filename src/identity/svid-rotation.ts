// Our SVID and the trust bundles as they are now: the SPIRE agent renews them, and each of its answers takes the place of the last.
import { type Clock, createBackoff, Latest, type Random, type Timer } from "../async/index.ts";
import type { Transport } from "../rpc/index.ts";
import type { Condition, Health, Log } from "../telemetry/index.ts";
import type { Svid, X509Context } from "./read-svid.ts";
import { SvidExpiry } from "./svid-expiry.ts";
import type { TrustBundles } from "./verify-peer-chain.ts";
import { checkWorkloadSocket, watchX509Context } from "./workload-api.ts";

export interface SvidRotationOptions {
  /** SPIFFE_ENDPOINT_SOCKET: "unix:///run/spire/sockets/agent.sock". */
  readonly endpointSocket: string;
  readonly clock: Clock;
  readonly log: Log;
  readonly health: Health;
  /** See `ClientOptions` of rpc. */
  readonly transport?: Transport | undefined;
  /** Spreads retries. */
  readonly random?: Pick<Random, "fraction"> | undefined;
}

const FIRST_REMINDER_MS = 1000;
const LONGEST_REMINDER_MS = 60_000;

/** Follows the agent. What came last stays in use while the agent is away. */
export class SvidRotation {
  readonly current = new Latest<Svid>();
  readonly #options: SvidRotationOptions;
  readonly #expiry: SvidExpiry;
  readonly #missing: Condition;
  readonly #stop = new AbortController();
  readonly #watching: Promise<void>;
  readonly #startedMs: number;
  readonly #reminders = createBackoff({ firstMs: FIRST_REMINDER_MS, limitMs: LONGEST_REMINDER_MS, random: () => 1 });
  #reminder: Timer | undefined;
  #bundles: TrustBundles = new Map();
  /** Why the agent gives nothing at the moment; undefined while its stream lives. */
  #problem: string | undefined;

  /** @throws {IdentityError} kind "bad-socket" */
  constructor(options: SvidRotationOptions) {
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
    this.#watching = watchX509Context({ ...options, socket, onContext, onProblem }, this.#stop.signal);
  }

  get bundles(): TrustBundles {
    return this.#bundles;
  }

  /** What an SVID that is missing is waited for: the agent, and why it gives none. */
  get waitsFor(): string {
    const from = `the SPIRE agent at ${this.#options.endpointSocket}`;
    return this.#problem === undefined ? from : `${from}: ${this.#problem}`;
  }

  async close(): Promise<void> {
    this.#stop.abort();
    this.#reminder?.cancel();
    this.#expiry.stop();
    await this.#watching;
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
    this.#logNew(svid, before === undefined);
    this.#missing.clear();
    this.#reminder?.cancel();
    this.#expiry.watch(svid);
    this.current.set(svid);
  }

  #logNew(svid: Svid, isFirst: boolean): void {
    const { clock, log } = this.#options;
    log.info(isFirst ? "svid-received" : "svid-rotated", {
      spiffeId: svid.id,
      serial: svid.serial,
      notAfter: new Date(svid.notAfterMs).toISOString(),
      trustDomains: [...this.#bundles.keys()],
      ...(isFirst ? { waitedMs: Math.round(clock.monotonicMs() - this.#startedMs) } : {}),
    });
  }

  /** Every try fails in the same words for as long as the agent is away: logged once, then only as a reminder. */
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
