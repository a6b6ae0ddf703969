// Everything between this node's VFs and kubelet: what is offered, who has it, and when it is free again.
import { resolve } from "node:path";
import type { Clock, UndoStack } from "../async/index.ts";
import { type Inventory, offerOf } from "../inventory/index.ts";
import { AllocatedTokens, DevicePlugins, ForeignDevices, PodResources, type PodsOfTokens } from "../kubelet/index.ts";
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

/**
 * As soon as NSM is served: what a pod then requests is answered when the manager knows us. Kubelet may be away: it is awaited
 * for some seconds only.
 */
export async function offerToKubelet(options: KubeletOfferOptions, undo: UndoStack): Promise<KubeletNews> {
  const { settings, inventory, pods, host, transport, endConnection, health, clock, log } = options;
  const common = { transport, random: host.random, clock, log, health };
  const intervalMs = settings.resourcePollTimeoutMs;
  const offer = offerOf(inventory, (connectionId) => {
    log.warn("token-allocated-again", { connection: connectionId });
    void endConnection(connectionId);
  });
  const foreign = new ForeignDevices(offer);
  const podResources = new PodResources({
    ...common,
    folder: settings.podResourcesPath,
    intervalMs,
    onAllocatable: (devices) => foreign.observe(devices),
  });
  undo.push("pod resources", () => podResources.close());
  const parts = { inventory, offer, podResources, checkpoint: pods, intervalMs, endConnection, clock, log };
  const tokens = await AllocatedTokens.start(parts);
  undo.push("tokens of pods", () => tokens.close());
  const folder = host.watchFolder(resolve(settings.devicePluginPath), clock);
  undo.push("watch of kubelet's folder", () => folder.close());
  const askSoon = () => podResources.askSoon();
  const plugins = new DevicePlugins({ ...common, offer: tokens.offer, folder, foreign, askSoon });
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
