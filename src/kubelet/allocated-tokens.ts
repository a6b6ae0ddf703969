// Which pods hold which tokens: what kubelet reports and what it does not, fitted to the inventory.
import type { Clock } from "../async/index.ts";
import { type Inventory, isTokenId, type Offer } from "../inventory/index.ts";
import type { Log } from "../telemetry/index.ts";
import { firstWord } from "./first-word.ts";
import type { PodHoldings, PodResources, PodResourcesState } from "./pod-resources.ts";
import type { PodsOfTokens } from "./pods-of-tokens.ts";
import { TokenLife } from "./token-life.ts";

interface AllocatedTokensOptions {
  readonly inventory: Inventory;
  /** What kubelet is offered. */
  readonly offer: Offer;
  readonly podResources: Pick<PodResources, "state" | "querySoon">;
  readonly checkpoint: Pick<PodsOfTokens, "read">;
  /** Between two questions to kubelet. */
  readonly intervalMs: number;
  /** Takes a connection down whose pod has died. */
  endConnection(connectionId: string): Promise<void>;
  readonly clock: Clock;
  readonly log: Log;
}

/** A pod may be gone from one answer to the next, and back: two intervals are the least. */
const GRACE_INTERVALS = 2;

/** Follows the tokens from kubelet to pods and back. */
export class AllocatedTokens {
  /** The offer, with each allocation noted. */
  readonly offer: Offer;
  readonly #options: AllocatedTokensOptions;
  readonly #life: TokenLife;
  #stop: () => void = () => {};

  /**
   * Reserves what pods have from a previous instance, then keeps watch. Resolves when kubelet has spoken or has not in some
   * seconds: only then may anything be offered, or a token's sibling could be given to a second pod.
   */
  static async start(options: AllocatedTokensOptions): Promise<AllocatedTokens> {
    const tokens = new AllocatedTokens(options);
    await tokens.#start();
    return tokens;
  }

  private constructor(options: AllocatedTokensOptions) {
    const { offer, podResources, intervalMs } = options;
    this.#options = options;
    this.#life = new TokenLife(GRACE_INTERVALS * intervalMs);
    this.offer = {
      ...offer,
      allocate: (resource, ids) => {
        offer.allocate(resource, ids);
        for (const id of ids) this.#life.allocated(id, resource);
        podResources.querySoon();
      },
    };
  }

  async #start(): Promise<void> {
    const { podResources, checkpoint, clock, log } = this.#options;
    for (const [id, { resource }] of (await checkpoint.read()) ?? []) {
      if (!this.#isOurs(id, resource)) continue;
      this.#life.allocated(id, resource);
      this.#adopt(id, resource);
    }
    try {
      await this.#observe(await firstWord(podResources, clock));
    } catch (error) {
      log.warn("tokens-of-pods-unknown", { problem: String(error) });
    }
    // One answer after the other: reading the checkpoint takes time, and an older answer must not come last.
    let turn = Promise.resolve();
    this.#stop = podResources.state.onChange((state) => {
      turn = turn
        .then(() => this.#observe(state))
        .catch((error: unknown) => log.error("tokens-of-pods-unknown", { problem: String(error) }));
    });
  }

  close(): void {
    this.#stop();
  }

  async #observe(state: PodResourcesState): Promise<void> {
    if (state.kind === "unknown") return this.#life.doubt();
    const { inventory, checkpoint, clock, log } = this.#options;
    const queriedMs = clock.monotonicMs();
    const record = await checkpoint.read();
    const [answeredMs, holdings, connections] = [clock.monotonicMs(), this.#ours(state.holdings), this.#connections()];
    const sight = { holdings, checkpoint: record, connections, queriedMs, answeredMs };
    const { adopted, freed } = this.#life.observe(sight);
    for (const { id, resource } of adopted) this.#adopt(id, resource);
    for (const { id, connectionId } of freed) {
      const { address } = inventory.releaseToken(id);
      log.info("token-released", { vf: address, connection: connectionId });
      if (connectionId !== undefined) void this.#end(connectionId);
    }
  }

  async #end(connectionId: string): Promise<void> {
    const { endConnection, log } = this.#options;
    log.warn("pod-died-without-close", { connection: connectionId });
    try {
      await endConnection(connectionId);
    } catch (error) {
      log.error("connection-of-dead-pod-not-closed", { connection: connectionId, error: String(error) });
    }
  }

  #adopt(id: string, resource: string): void {
    const { inventory, log } = this.#options;
    const isKnown = inventory.resourceOf(id) !== undefined;
    inventory.adoptToken(id, resource);
    log.info("token-adopted", { resource, madeBy: isKnown ? "this node" : "an older forwarder" });
  }

  #connections(): ReadonlyMap<string, string> {
    const held = this.#options.inventory.snapshot().filter(({ state }) => state === "ready");
    return new Map(
      held.flatMap(({ tokenId, connectionId }) => (tokenId && connectionId ? [[tokenId, connectionId]] : [])),
    );
  }

  #isOurs(id: string, resource: string): boolean {
    return isTokenId(id) && this.#options.inventory.resources.includes(resource);
  }

  #ours({ pods, devices }: PodHoldings): PodHoldings {
    return { pods, devices: new Map([...devices].filter(([id, { resource }]) => this.#isOurs(id, resource))) };
  }
}
