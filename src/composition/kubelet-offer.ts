// Everything between this node's VFs and kubelet: what is offered, who has it, and when it is free again.
import { resolve } from "node:path";
import type { Clock, UndoStack } from "../async/index.ts";
import { type Inventory, type Offer, offerOf } from "../inventory/index.ts";
import {
  AllocatedTokens,
  DevicePlugins,
  ForeignDevices,
  firstWord,
  type PodHoldings,
  PodResources,
  type PodsOfTokens,
} from "../kubelet/index.ts";
import type { Host } from "../node/index.ts";
import type { Transport } from "../rpc/index.ts";
import type { Health, Log } from "../telemetry/index.ts";

/** What the environment says about kubelet; names and units as in config.ts. */
export interface KubeletSettings {
  readonly devicePluginPath: string;
  readonly podResourcesPath: string;
  readonly resourcePollTimeoutMs: number;
}

interface KubeletOfferOptions {
  readonly settings: KubeletSettings;
  readonly inventory: Inventory;
  readonly pods: PodsOfTokens;
  readonly host: Pick<Host, "watchFolder" | "random">;
  readonly transport: Transport | undefined;
  /** Takes down a connection whose pod has died, or whose token another pod has got. */
  endConnection(connectionId: string): Promise<void>;
  readonly health: Health;
  readonly clock: Clock;
  readonly log: Log;
}

/** What kubelet has said about its pods. */
interface KubeletNews {
  /** "namespace/name" of the pod that has the token; undefined when none is known to. */
  podOf(tokenId: string): string | undefined;
  /** Calls back when kubelet has spoken. */
  onChange(listener: () => void): void;
}

/** Kubelet, from before the node is judged on. */
export interface KubeletSide {
  /** Of a token that a pod has; undefined where kubelet does not say so. It is awaited for some seconds only. */
  resourceOf(tokenId: string): Promise<string | undefined>;
  /**
   * From the end of recovery on: who else is there for it does not matter. Kubelet may be away: it is awaited for some seconds
   * only.
   */
  offer(): Promise<KubeletNews>;
}

/** Begins to ask kubelet; offers nothing yet. */
export function openKubelet(options: KubeletOfferOptions, undo: UndoStack): KubeletSide {
  const { settings, inventory, pods, transport, endConnection, host, health, clock, log } = options;
  const offer = offerOf(inventory, (connectionId) => {
    log.warn("token-allocated-again", { connection: connectionId });
    void endConnection(connectionId);
  });
  const foreign = new ForeignDevices(offer);
  const podResources = new PodResources({
    ...{ transport, random: host.random, clock, log, health },
    folder: settings.podResourcesPath,
    intervalMs: settings.resourcePollTimeoutMs,
    onAllocatable: (devices) => foreign.observe(devices),
  });
  undo.push("pod resources", () => podResources.close());
  let listed: Promise<PodHoldings | undefined> | undefined;
  return {
    async resourceOf(tokenId) {
      const noted = (await pods.read())?.get(tokenId);
      if (noted) return noted.resource;
      listed ??= firstWord(podResources, clock).then(
        (state) => (state.kind === "known" ? state.holdings : undefined),
        () => undefined, // who offers waits for it, too, and says so
      );
      return (await listed)?.devices.get(tokenId)?.resource;
    },
    offer: () => offerToKubelet({ ...options, offer, foreign, podResources }, undo),
  };
}

interface OfferParts extends KubeletOfferOptions {
  readonly offer: Offer;
  readonly foreign: ForeignDevices;
  readonly podResources: PodResources;
}

async function offerToKubelet(parts: OfferParts, undo: UndoStack): Promise<KubeletNews> {
  const { settings, pods, host, transport, foreign, podResources, health, clock, log } = parts;
  const intervalMs = settings.resourcePollTimeoutMs;
  const tokens = await AllocatedTokens.start({ ...parts, checkpoint: pods, intervalMs });
  undo.push("tokens of pods", () => tokens.close());
  const folder = host.watchFolder(resolve(settings.devicePluginPath), clock);
  undo.push("watch of kubelet's folder", () => folder.close());
  const querySoon = () => podResources.querySoon();
  const common = { transport, random: host.random, clock, log, health };
  const plugins = new DevicePlugins({ ...common, offer: tokens.offer, folder, foreign, querySoon });
  undo.push("device plugins", () => plugins.close());
  return newsOf(podResources);
}

/** While kubelet is away, what it said last is the best that can be shown. */
export function newsOf({ state }: Pick<PodResources, "state">): KubeletNews {
  let said = state.value?.kind === "known" ? state.value.holdings : undefined;
  state.onChange((now) => {
    if (now.kind === "known") said = now.holdings;
  });
  return {
    podOf: (tokenId) => said?.devices.get(tokenId)?.pod,
    onChange: (listener) => void state.onChange(listener),
  };
}
