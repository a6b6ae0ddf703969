// Our SVID and the trust bundles as they are now: the SPIRE agent renews them, and each of its answers takes the place of the last.
import { type Clock, createBackoff, Latest, type Random, type Timer } from "../async/index.ts";
import type { Transport } from "../rpc/index.ts";
import type { Condition, Health, Log } from "../telemetry/index.ts";
import type { Svid, X509Context } from "./read-svid.ts";
import type { SpiffeIdPattern } from "./spiffe-id-pattern.ts";
import { SvidExpiry } from "./svid-expiry.ts";
import { areSame, authoritiesOf } from "./trust-bundles.ts";
import type { TrustBundles } from "./verify-peer-chain.ts";
import { checkWorkloadSocket, watchX509Context } from "./workload-api.ts";

export interface SvidRotationOptions {
  /** SPIFFE_ENDPOINT_SOCKET: "unix:///run/spire/sockets/agent.sock". */
  readonly endpointSocket: string;
  /** NSM_SPIFFE_ID: who we want to be where the agent issues several SVIDs; undefined: who we are, or the first. */
  readonly spiffeIds?: readonly SpiffeIdPattern[] | undefined;
  /** Who we were before a restart: kept as who we are is. */
  readonly last?: string | undefined;
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
  /** Set before the SVID of the same answer, and only where they are others. */
  readonly bundles = new Latest<TrustBundles>();
  readonly #options: SvidRotationOptions;
  readonly #expiry: SvidExpiry;
  readonly #missing: Condition;
  readonly #lost: Condition;
  readonly #stop = new AbortController();
  readonly #watching: Promise<void>;
  readonly #startedMs: number;
  readonly #reminders = createBackoff({ firstMs: FIRST_REMINDER_MS, limitMs: LONGEST_REMINDER_MS, random: () => 1 });
  #reminder: Timer | undefined;
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
    this.#lost = health.condition("workload-api-lost");
    log.info("svid-awaited", { from: socket });
    this.#remind();
    const onContext = (context: X509Context) => this.#accept(context);
    const onProblem = (problem: string) => this.#note(problem);
    const choice = () => ({ current: this.current.value?.id ?? options.last, wanted: options.spiffeIds });
    this.#watching = watchX509Context({ ...options, socket, choice, onContext, onProblem }, this.#stop.signal);
  }

  /** Why the agent gives nothing at the moment, in words for the operator; undefined while its stream lives. */
  get problem(): string | undefined {
    return this.#problem;
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

  #accept(context: X509Context): void {
    const { svid, bundles, brokenBundles } = context;
    const { log } = this.#options;
    for (const broken of brokenBundles) log.warn("trust-bundle-unreadable", broken);
    if (this.#problem !== undefined) log.info("workload-api-back");
    this.#problem = undefined;
    this.#lost.clear();
    this.#expiry.explain(undefined);
    this.#acceptBundles(bundles);
    const before = this.current.value;
    if (before?.certChainPem === svid.certChainPem && before.keyPem === svid.keyPem) {
      log.debug("svid-unchanged", { serial: svid.serial });
      return;
    }
    this.#logNew(context, before);
    this.#missing.clear();
    this.#reminder?.cancel();
    this.#expiry.watch(svid);
    this.current.set(svid);
  }

  #acceptBundles(bundles: TrustBundles): void {
    const before = this.bundles.value;
    if (before && areSame(before, bundles)) return;
    if (before) this.#options.log.info("trust-bundles-changed", { authorities: authoritiesOf(bundles) });
    this.bundles.set(bundles);
  }

  #logNew({ svid, issued, bundles }: X509Context, before: Svid | undefined): void {
    const { clock, log } = this.#options;
    const others = issued.filter((id) => id !== svid.id);
    log.info(before ? "svid-rotated" : "svid-received", {
      spiffeId: svid.id,
      serial: svid.serial,
      notAfter: new Date(svid.notAfterMs).toISOString(),
      authorities: authoritiesOf(bundles),
      ...(others.length > 0 ? { others } : {}),
      ...(before ? {} : { waitedMs: Math.round(clock.monotonicMs() - this.#startedMs) }),
    });
    if (!before || before.id === svid.id) return;
    const hint =
      "peers know us by the ID before, and a registry may refuse our name; NSM_SPIFFE_ID says which one is ours";
    log.warn("spiffe-id-changed", { before: before.id, spiffeId: svid.id, hint });
  }

  /** Every try fails in the same words for as long as the agent is away: logged once, then only as a reminder. */
  #note(problem: string): void {
    const { log, endpointSocket } = this.#options;
    const isNew = problem !== this.#problem;
    this.#problem = problem;
    log.debug("workload-api-failed", { from: endpointSocket, problem });
    const svid = this.current.value;
    if (svid === undefined) {
      this.#missing.raise(`No X.509 SVID yet from ${endpointSocket}: ${problem}`);
      return;
    }
    if (isNew) log.warn("workload-api-lost", { from: endpointSocket, problem, kept: "the last SVID and bundles" });
    const end = new Date(svid.notAfterMs).toISOString();
    this.#lost.raise(`The SVID of ${svid.id}, good until ${end}, is not renewed by ${endpointSocket}: ${problem}`);
    this.#expiry.explain(problem);
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
