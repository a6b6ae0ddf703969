import { type Backoff, type Clock, createBackoff, type Random } from "../async/index.ts";
import { Registration } from "../gen/deviceplugin_pb.ts";
import type { Offer } from "../inventory/index.ts";
import type { WatchedFolder } from "../kernel/index.ts";
import { type RpcClient, type RpcServer, serveRpc, type Transport } from "../rpc/index.ts";
import type { Condition, Log } from "../telemetry/index.ts";
import { DeviceList } from "./device-list.ts";
import type { ForeignDevices } from "./foreign-devices.ts";
import { pluginHandlers, pluginOptions, pluginRequestLimit } from "./plugin-service.ts";
import { socketName } from "./resource-name.ts";
import { Wakeup } from "./wakeup.ts";

interface PluginOptions {
  readonly resource: string;
  readonly offer: Offer;
  readonly folder: Omit<WatchedFolder, "close">;
  readonly client: RpcClient;
  readonly clock: Clock;
  readonly log: Log;
  /** Raised, with the resource as its subject, while kubelet does not follow it. */
  readonly unregistered: Condition;
  /** Raised, with the resource as its subject, while another plugin offers it. */
  readonly elsewhere: Condition;
  readonly foreign?: Pick<ForeignDevices, "streak">;
  readonly random?: Pick<Random, "fraction"> | undefined;
  querySoon?(): void;
  readonly transport?: Transport | undefined;
  onRegistered(isRegistered: boolean): void;
}

const KUBELET_SOCKET = "kubelet.sock";
const VERSION = "v1beta1";

/** Kubelet's new socket exists some instants before it answers there. */
const FIRST_RETRY_MS = 20;
const LONGEST_RETRY_MS = 5000;
/** A kubelet that lets go of the list sooner than this gets no new registration at once. */
const STEADY_MS = 5000;
/** Events of the folder can be lost; a check costs two syscalls. */
const RESCAN_MS = 1000;
/** Kubelet dials back within Register and gives that 10 s. */
const REGISTER_TIMEOUT_MS = 15_000;
/** Kubelet follows the list right after Register. One that does not has dropped us without a word (before 1.25). */
const FOLLOW_TIMEOUT_MS = 5000;

/**
 * Offers one resource to kubelet, for ever: listens, registers, and does both again when kubelet has restarted (it removes
 * every socket in the folder then), when it has let go of the list, or when our socket file is gone.
 */
export class ResourceRegistration {
  readonly #options: PluginOptions;
  readonly #bell: Wakeup;
  readonly #stop = new AbortController();
  readonly #socket: string;
  readonly #list = new DeviceList();
  readonly #running: Promise<void>;
  #server: RpcServer | undefined;
  /** Identity of our socket file; another, or none, under its name means that kubelet cannot dial us. */
  #listening: string | undefined;
  /** Identity of the kubelet socket that was there when we began to listen. */
  #listeningFor: string | undefined;
  /** Identity of the kubelet socket that knows us. */
  #registeredAt: string | undefined;
  #isFollowed = false;
  /** Another plugin offered the resource at the last check. */
  #isElsewhere = false;
  /** How often a kubelet has begun to follow the list. One that restarts may have let go of it before the next check. */
  #follows = 0;
  #followedMs = Number.NEGATIVE_INFINITY;
  /** Of the last try, so that the same words are not reported again and again. */
  #problem: string | undefined;

  constructor(options: PluginOptions) {
    this.#options = options;
    this.#bell = new Wakeup(options.clock);
    this.#socket = socketName(options.resource);
    this.#running = this.#run(this.#stop.signal);
  }

  /** Takes the resource back: kubelet sees its list end. */
  async stop(): Promise<void> {
    this.#stop.abort();
    await this.#running;
    await this.#server?.stop(0);
  }

  async #run(signal: AbortSignal): Promise<void> {
    const { folder, random } = this.#options;
    const unsubscribe = folder.onChange(() => this.#bell.ring());
    const backoff = createBackoff({ firstMs: FIRST_RETRY_MS, limitMs: LONGEST_RETRY_MS, random: random?.fraction });
    let seen: string | undefined;
    while (!signal.aborted) {
      const kubelet = folder.identity(KUBELET_SOCKET);
      if (kubelet !== seen) backoff.reset(); // a new kubelet owes nothing for the silence of the old one
      seen = kubelet;
      if (kubelet === undefined) this.#reportMissing();
      const isElsewhere = this.#noteOthers();
      if (kubelet === undefined || isElsewhere || (this.#isFollowed && kubelet === this.#registeredAt)) {
        await this.#bell.wait(RESCAN_MS, signal);
      } else if (this.#hasLetGo(kubelet)) {
        this.#registeredAt = undefined;
        await this.#pause(backoff.nextMs(), kubelet, signal);
      } else {
        const retryMs = await this.#offer(kubelet, backoff, signal);
        if (retryMs > 0) await this.#pause(retryMs, kubelet, signal);
      }
    }
    unsubscribe();
  }

  /**
   * Whether another plugin offers the resource. It is left alone: kubelet would take each registration, of both in turn, for ever. One
   * answer of kubelet will do where nothing of ours is registered; else its answer may be older than our list. When the other
   * has ended, kubelet has no plugin for the resource, though it may still follow our list: all begins again.
   */
  #noteOthers(): boolean {
    const { resource, foreign, elsewhere, querySoon, log } = this.#options;
    const isElsewhere = (foreign?.streak(resource) ?? 0) >= (this.#isFollowed && !this.#isElsewhere ? 2 : 1);
    if (isElsewhere) querySoon?.();
    if (isElsewhere === this.#isElsewhere) return isElsewhere;
    this.#isElsewhere = isElsewhere;
    if (isElsewhere) {
      log.warn("resource-offered-elsewhere", { resource });
      elsewhere.raise(
        `Another device plugin on this node offers ${resource} to kubelet: it gives pods devices that are not ours. We do not register over it, ` +
          "and offer ours when it has ended. Look for a second forwarder, or for sriov-network-device-plugin with that resource name",
        resource,
      );
    } else {
      log.info("resource-offered-again", { resource });
      elsewhere.clear(resource);
      this.#registeredAt = undefined;
      this.#listeningFor = undefined;
    }
    return isElsewhere;
  }

  /** Whether this kubelet has followed the list and dropped it at once: it may do so again and again. */
  #hasLetGo(kubelet: string): boolean {
    return kubelet === this.#registeredAt && this.#options.clock.monotonicMs() - this.#followedMs < STEADY_MS;
  }

  /** Waits, but not for an old kubelet when there is a new one. Other files of the folder come and go: ours among them. */
  async #pause(limitMs: number, kubelet: string, signal: AbortSignal): Promise<void> {
    const { clock, folder } = this.#options;
    const endMs = clock.monotonicMs() + limitMs;
    while (!signal.aborted && folder.identity(KUBELET_SOCKET) === kubelet) {
      const leftMs = endMs - clock.monotonicMs();
      if (leftMs <= 0) return;
      await this.#bell.wait(leftMs, signal);
    }
  }

  /** Listens and registers. Returns how long to wait before the next try; 0 when none is needed. */
  async #offer(kubelet: string, backoff: Backoff, signal: AbortSignal): Promise<number> {
    const { clock, log, resource, offer, unregistered } = this.#options;
    const startedMs = clock.monotonicMs();
    const followsBefore = this.#follows;
    try {
      await this.#listen(kubelet);
      await this.#register(signal);
      this.#registeredAt = kubelet;
      if (!(await this.#followed(followsBefore, kubelet, signal))) return 0;
      this.#followedMs = clock.monotonicMs();
      this.#problem = undefined;
      const tookMs = Math.round(clock.monotonicMs() - startedMs);
      log.info("resource-registered", { resource, devices: offer.devices(resource).length, tookMs });
      return 0;
    } catch (error) {
      if (signal.aborted) return 0;
      const problem = (error as Error).message;
      const retryMs = backoff.nextMs();
      const fields = { resource, problem, retryMs: Math.round(retryMs) };
      if (problem === this.#problem) log.debug("resource-not-registered", fields);
      else log.warn("resource-not-registered", fields);
      this.#problem = problem;
      unregistered.raise(`Kubelet does not offer ${resource} to pods: ${problem}`, resource);
      return retryMs;
    }
  }

  /** A new socket for a new kubelet; the old one where the same kubelet gets a new registration and can still dial it. */
  async #listen(kubelet: string): Promise<void> {
    const { folder, resource, offer, transport, clock, log } = this.#options;
    const file = folder.identity(this.#socket);
    const isDialable = this.#server !== undefined && file !== undefined && file === this.#listening;
    if (isDialable && kubelet === this.#listeningFor) return;
    // First the old one: ending it removes its socket file, whose name the new one takes.
    await this.#server?.stop(0);
    this.#server = undefined;
    const onStreams = (open: number) => this.#noteStreams(open);
    this.#server = await serveRpc({
      url: `unix://${folder.path.replace(/\/+$/, "")}/${this.#socket}`,
      handlers: pluginHandlers({ resource, offer, list: this.#list, clock, log, onStreams }),
      socketMode: 0o600,
      transport,
      limits: { maxMessageBytes: pluginRequestLimit.bytes },
      log,
      clock,
    });
    this.#listening = folder.identity(this.#socket);
    this.#listeningFor = kubelet;
  }

  async #register(signal: AbortSignal): Promise<void> {
    const { client, folder, resource } = this.#options;
    const target = `unix://${folder.path.replace(/\/+$/, "")}/${KUBELET_SOCKET}`;
    const request = { version: VERSION, endpoint: this.#socket, resourceName: resource, options: pluginOptions };
    await client.call(target, Registration.method.register, request, { signal, timeoutMs: REGISTER_TIMEOUT_MS });
  }

  /** Waits until kubelet has begun to follow the list. False when another kubelet has come meanwhile, or none is there. */
  async #followed(followsBefore: number, kubelet: string, signal: AbortSignal): Promise<boolean> {
    const { clock, folder } = this.#options;
    const endMs = clock.monotonicMs() + FOLLOW_TIMEOUT_MS;
    while (this.#follows === followsBefore) {
      signal.throwIfAborted();
      if (folder.identity(KUBELET_SOCKET) !== kubelet) return false;
      const leftMs = endMs - clock.monotonicMs();
      if (leftMs <= 0) throw new Error("kubelet has accepted the registration and does not follow the device list");
      await this.#bell.wait(leftMs, signal);
    }
    return true;
  }

  #noteStreams(open: number): void {
    const { log, resource, unregistered, onRegistered } = this.#options;
    const isFollowed = open > 0;
    if (isFollowed === this.#isFollowed) return;
    this.#isFollowed = isFollowed;
    if (isFollowed) {
      this.#follows += 1;
      unregistered.clear(resource);
    }
    onRegistered(isFollowed);
    if (!isFollowed && !this.#stop.signal.aborted) {
      log.info("kubelet-gone", { resource });
      unregistered.raise(
        `Kubelet does not offer ${resource} to pods: it has ended the stream of the device list`,
        resource,
      );
    }
    this.#bell.ring();
  }

  #reportMissing(): void {
    const { folder, resource, unregistered } = this.#options;
    const sentence = `Kubelet does not offer ${resource} to pods: there is no ${folder.path}/${KUBELET_SOCKET}`;
    unregistered.raise(`${sentence}. Is kubelet running, and is its folder mounted here?`, resource);
  }
}
