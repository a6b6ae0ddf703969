import type { MessageInitShape } from "@bufbuild/protobuf";
import { timestampMs } from "@bufbuild/protobuf/wkt";
import { type Backoff, type Clock, createBackoff, guarded, Latest, systemRandom } from "../../async/index.ts";
import { NetworkServiceEndpointRegistry, type NetworkServiceEndpointSchema } from "../../gen/registry_pb.ts";
import { isOfAnotherKey } from "../../identity/index.ts";
import { RpcError, type RpcStream, type Status } from "../../rpc/index.ts";
import type { Log } from "../../telemetry/index.ts";
import { textOf } from "../fault.ts";
import { formatInodeUrl } from "../mechanism/inode-url.ts";
import type { Caller, FileId, OwnedFd } from "../peers.ts";
import type { ManagerSource } from "../permission/connection-owner.ts";
import type { RegistrationAnswer } from "./answer-policies.ts";
import { EMPTY_PATH, formatRegistryPath, PATH_HEADER, parseRegistryPath, type RegistryPath } from "./registry-path.ts";
import { RenewalTimes } from "./renewal-times.ts";

const UNREGISTER_LIMIT_MS = 2_000;
/** A registration that is dropped sooner is not made again and again without a pause. */
const DROPPED_AT_ONCE_MS = 5_000;

/** Where our server listens. */
type OwnSocket =
  /** A unix socket: the manager gets its descriptor (opened O_PATH) and names it by its inode. */
  | { readonly fd: OwnedFd; readonly id: FileId }
  /** Anything that the manager can dial as it is. */
  | { readonly url: string };

export interface RegistrationOptions {
  /** NSM_NAME. */
  readonly name: string;
  /** A name that we had before. That it is refused is to be expected: a registry keeps a name to the SPIFFE ID that had it first. */
  readonly isEarlierName?: boolean;
  /** NSM_NS_NAME: the services by which managers find a forwarder. */
  readonly networkServices: readonly string[];
  readonly labels: Readonly<Record<string, string>>;
  /** NSM_CONNECT_TO. */
  readonly managerTarget: string;
  readonly socket: OwnSocket;
  /** NSM_MAX_TOKEN_LIFETIME, in ms. */
  readonly tokenLifetimeMs: number;
  readonly caller: Caller;
  /** NSM_REGISTRY_CLIENT_POLICIES. @throws when a policy refuses the answer. */
  readonly checkAnswer?: (answer: RegistrationAnswer) => void;
  /** Calls back when we have another certificate, or trust others: what was refused may be accepted now. Returns how to stop. */
  readonly onIdentity?: (listener: () => void) => () => void;
  readonly clock: Clock;
  readonly log: Log;
  /** A number in [0, 1), the machine's by default. */
  readonly random?: () => number;
}

/** The state of the registration; for health and readiness. */
type RegistrationState =
  | { readonly kind: "registered"; readonly managerSpiffeId: string | undefined }
  | { readonly kind: "trying"; readonly problem: string /** A person must act. */; readonly isPermanent: boolean };

/** What the manager says when it takes us out by itself. */
class Dropped extends RpcError {
  constructor() {
    super("UNAVAILABLE", "the manager has dropped our registration");
  }
}

/**
 * Keeps us in the registry (the original's retry, refresh, heal and sendfd): registers, renews in time, registers again as soon as
 * the manager goes or forgets us, and takes us out at the end. Also knows who the manager is: the peer that answers.
 */
export class Registration implements ManagerSource {
  readonly state = new Latest<RegistrationState>();
  readonly #options: RegistrationOptions;
  readonly #stop = new AbortController();
  readonly #transient: Backoff;
  readonly #permanent: Backoff;
  readonly #times: RenewalTimes;
  /** Ends the pause after a failure; undefined while a call is under way. */
  #wake: AbortController | undefined;
  /** Who we are, or whom we trust, has changed since the last call began. */
  #isOtherIdentity = false;
  #path: RegistryPath = EMPTY_PATH;
  #manager: string | undefined;
  /** The stop came while the first call was under way: the manager may have taken our entry all the same. */
  #mayBeKnown = false;
  #isRefusalLogged = false;
  #loop: Promise<void> | undefined;

  constructor(options: RegistrationOptions) {
    this.#options = options;
    const { random = systemRandom.fraction, tokenLifetimeMs } = options;
    this.#transient = createBackoff({ firstMs: 200, limitMs: 5_000, random });
    this.#permanent = createBackoff({ firstMs: 5_000, limitMs: 60_000, random });
    this.#times = new RenewalTimes(tokenLifetimeMs, random);
  }

  get spiffeId(): string | undefined {
    return this.#manager;
  }

  /** Begins; never gives up until `stop`. Watch `state` for the outcome. */
  start(): void {
    this.#loop ??= this.#run(this.#stop.signal);
  }

  /** Ends the registration and takes us out of the registry, as well as that works within a bounded time. */
  async stop(): Promise<void> {
    this.#stop.abort(new Error("the registration was stopped"));
    await this.#loop;
    // Also when the manager was lost since: it, or the next one, may still know our entry.
    if (this.#manager !== undefined || this.#mayBeKnown) await this.#unregister();
  }

  async #unregister(): Promise<void> {
    const { caller, managerTarget, log } = this.#options;
    const options = { ...this.#callOptions(), timeoutMs: UNREGISTER_LIMIT_MS };
    try {
      await caller.call(managerTarget, NetworkServiceEndpointRegistry.method.unregister, this.#entry(), options);
      log.info("unregistered");
    } catch (error) {
      log.warn("not-unregistered", { error: textOf(error) });
    }
  }

  async #run(signal: AbortSignal): Promise<void> {
    const stop = this.#options.onIdentity?.(() => {
      this.#isOtherIdentity = true;
      this.#wake?.abort();
    });
    while (!signal.aborted) {
      try {
        this.#isOtherIdentity = false;
        const refreshMs = await this.#register(signal);
        if (refreshMs !== 0) await this.#untilDue(refreshMs, signal);
      } catch (error) {
        this.#mayBeKnown = signal.aborted;
        if (!signal.aborted) await this.#pause(error, signal);
      }
    }
    stop?.();
  }

  /** Registers once. Returns when to do it again, in ms; undefined when the registration does not expire. */
  async #register(signal: AbortSignal, isSecondTry = false): Promise<number | undefined> {
    const { caller, managerTarget, clock, name, checkAnswer, log } = this.#options;
    const options = { ...this.#callOptions(), timeoutMs: this.#times.tryMs, signal };
    const method = NetworkServiceEndpointRegistry.method.register;
    const sinceMs = clock.monotonicMs();
    const { response, metadata, connection } = await caller.call(managerTarget, method, this.#entry(), options);
    const path = parseRegistryPath(metadata.get(PATH_HEADER)) ?? this.#path;
    const { peer } = connection;
    if (checkAnswer && peer) {
      const { index, tokens } = path;
      try {
        checkAnswer({ name, pathIds: response.pathIds, index, tokens, peer, nowMs: clock.now() });
      } catch (error) {
        const isRenewed = !isSecondTry && isOfAnotherKey(error) && connection.renew() === true;
        if (isRenewed) return await this.#register(signal, true);
        // Never accepted: the registry must not lead a client to us on such terms.
        if (this.#manager === undefined) await this.#unregister();
        throw error;
      }
    }
    this.#path = path;
    if (this.#manager !== peer?.spiffeId || this.state.value?.kind !== "registered") {
      const { isEarlierName, networkServices } = this.#options;
      const manager = peer?.spiffeId;
      log.info(isEarlierName ? "earlier-name-registered" : "registered", { name, manager, networkServices });
    }
    this.#manager = peer?.spiffeId;
    this.#permanent.reset();
    this.state.set({ kind: "registered", managerSpiffeId: this.#manager });
    const { expirationTime } = response;
    const tookMs = clock.monotonicMs() - sinceMs;
    return expirationTime && this.#times.granted(timestampMs(expirationTime) - clock.now(), tookMs);
  }

  /** Waits until it is time to renew, or the manager is lost, or it says that we are not registered any more. */
  async #untilDue(refreshMs: number | undefined, signal: AbortSignal): Promise<void> {
    const { caller, managerTarget, name, clock } = this.#options;
    const query = { networkServiceEndpoint: { name }, watch: true };
    const enough = new AbortController();
    const either = AbortSignal.any([signal, enough.signal]);
    const sinceMs = clock.monotonicMs();
    const method = NetworkServiceEndpointRegistry.method.find;
    const stream = caller.stream(managerTarget, method, query, { signal: either });
    const due = refreshMs === undefined ? never(either) : clock.sleep(refreshMs, either);
    try {
      await Promise.race([due, this.#untilLost(stream, either)]);
      this.#times.kept();
      this.#transient.reset();
    } catch (error) {
      const keptMs = clock.monotonicMs() - sinceMs;
      const isDropped = error instanceof Dropped;
      if (isDropped) this.#times.dropped(keptMs);
      else this.#times.lost();
      if (!isDropped || keptMs >= DROPPED_AT_ONCE_MS) this.#transient.reset();
      throw error;
    } finally {
      enough.abort(new Error("the registration is renewed"));
      stream.cancel();
      await due.catch(() => {});
    }
  }

  async #untilLost(
    stream: RpcStream<{
      readonly deleted: boolean;
      readonly networkServiceEndpoint?: { readonly name: string } | undefined;
    }>,
    signal: AbortSignal,
  ): Promise<void> {
    stream.connection.catch(() => {}); // Its failure is also the stream's.
    try {
      for await (const { deleted, networkServiceEndpoint: entry } of stream) {
        if (deleted && entry?.name === this.#options.name) {
          throw new Dropped();
        }
      }
    } catch (error) {
      // A registry without watches: what is left is to renew in time.
      if (error instanceof RpcError && error.code === "UNIMPLEMENTED") return await never(signal);
      throw error;
    }
    throw new RpcError("UNAVAILABLE", "the manager has ended the watch of our registration");
  }

  async #pause(error: unknown, signal: AbortSignal): Promise<void> {
    const isPermanent = error instanceof RpcError ? PERMANENT.has(error.code) : true;
    if (error instanceof RpcError && error.code === "DEADLINE_EXCEEDED") this.#times.timedOut();
    this.#report(textOf(error), isPermanent);
    if (!this.#isOtherIdentity) {
      const wake = new AbortController();
      const either = AbortSignal.any([signal, wake.signal]);
      this.#wake = wake;
      const pauseMs = (isPermanent ? this.#permanent : this.#transient).nextMs();
      await this.#options.clock.sleep(pauseMs, either).catch(() => {}); // stopped or woken: the loop looks which
      this.#wake = undefined;
    }
    if (!this.#isOtherIdentity) return;
    this.#transient.reset();
    this.#permanent.reset();
  }

  /** One line for each problem, not for each try; lost is what there was. */
  #report(problem: string, isPermanent: boolean): void {
    const { log, managerTarget } = this.#options;
    const before = this.state.value;
    if (this.#options.isEarlierName) this.#logOnce(problem);
    else if (before?.kind !== "trying" || before.problem !== problem) {
      const fields = { manager: managerTarget, error: problem };
      if (isPermanent) log.error("registration-refused", fields);
      else log.warn(before?.kind === "registered" ? "registration-lost" : "registration-awaited", fields);
    }
    this.state.set({ kind: "trying", problem, isPermanent });
  }

  #logOnce(problem: string): void {
    const { log, name } = this.#options;
    if (!this.#isRefusalLogged) log.info("earlier-name-not-registered", { name, error: problem });
    this.#isRefusalLogged = true;
  }

  /** Always our own words: what the registry made of them is not sent back to it (W49). */
  #entry(): MessageInitShape<typeof NetworkServiceEndpointSchema> {
    const { name, networkServices, labels, socket } = this.#options;
    return {
      name,
      networkServiceNames: [...networkServices],
      networkServiceLabels: Object.fromEntries(networkServices.map((service) => [service, { labels: { ...labels } }])),
      url: "url" in socket ? socket.url : formatInodeUrl(socket.id),
    };
  }

  #callOptions() {
    const { socket } = this.#options;
    const metadata = { [PATH_HEADER]: formatRegistryPath(this.#path) };
    return "fd" in socket ? { metadata, fds: [socket.fd] } : { metadata };
  }
}

/** Codes that another try will not change by itself (W47). */
const PERMANENT: ReadonlySet<Status> = new Set<Status>([
  "INVALID_ARGUMENT",
  "PERMISSION_DENIED",
  "UNAUTHENTICATED",
  "UNIMPLEMENTED",
  "FAILED_PRECONDITION",
  "ALREADY_EXISTS",
]);

function never(signal: AbortSignal): Promise<void> {
  return new Promise((_resolve, reject) => {
    if (signal.aborted) reject(signal.reason);
    signal.addEventListener(
      "abort",
      guarded("abort", () => reject(signal.reason)),
      { once: true },
    );
  });
}
