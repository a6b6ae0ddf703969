import type { Clock } from "../async/index.ts";
import type { PreferredAllocationRequest } from "../gen/deviceplugin_pb.ts";
import { type AllocateRequest, DevicePlugin } from "../gen/deviceplugin_pb.ts";
import type { Offer } from "../inventory/index.ts";
import { type Call, encodedStreamHandler, type MessageLimit, type RpcHandler, unaryHandler } from "../rpc/index.ts";
import type { Log } from "../telemetry/index.ts";
import type { DeviceList } from "./device-list.ts";
import { Wakeup } from "./wakeup.ts";

interface PluginServiceOptions {
  readonly resource: string;
  readonly offer: Offer;
  /** Outlives these handlers: a new kubelet wants the list that the one before had. */
  readonly list: DeviceList;
  readonly clock: Clock;
  readonly log: Log;
  /** A ListAndWatch stream has begun or ended. */
  onStreams(open: number): void;
}

/** Pods find their tokens by this prefix, before the resource name as it is, dots and slash included. */
const TOKENS_VARIABLE = "NSM_SRIOV_TOKENS_";

/** What a plugin declares to kubelet at registration and on request. Older kubelets read only the first, newer the second. */
export const pluginOptions = { preStartRequired: false, getPreferredAllocationAvailable: true } as const;

/**
 * The list is reported again after this time, though nothing has changed. A kubelet that notices the end of an earlier stream
 * of the same socket late takes the whole resource for unhealthy, and learns better only by a list.
 */
const REPEAT_MS = 30_000;

/** Pods come and end in crowds. What happens so soon after a list goes out together, in the next one. */
const GAP_MS = 50;

/** The ids of some thousand devices, of 66 bytes each, and twice: available and to be included. */
export const pluginRequestLimit: MessageLimit = { bytes: 1024 * 1024, elements: 16_384 };

/** The device plugin API (v1beta1) for one resource. */
export function pluginHandlers(options: PluginServiceOptions): readonly RpcHandler[] {
  const { resource, offer, log } = options;
  const { method } = DevicePlugin;
  const streams = new Streams(options);
  return [
    unaryHandler(method.getDevicePluginOptions, async () => pluginOptions),
    encodedStreamHandler(method.listAndWatch, (_request, call) => streams.follow(call)),
    unaryHandler(method.getPreferredAllocation, async (request) => prefer(request, options), pluginRequestLimit),
    unaryHandler(
      method.allocate,
      async (request) => {
        offer.allocate(resource, [...new Set(request.containerRequests.flatMap((one) => one.devicesIds))]);
        log.info("devices-allocated", {
          resource,
          counts: request.containerRequests.map((one) => one.devicesIds.length),
        });
        return { containerResponses: variablesOf(resource, request) };
      },
      pluginRequestLimit,
    ),
    unaryHandler(method.preStartContainer, async () => ({})),
  ];
}

function variablesOf(resource: string, request: AllocateRequest) {
  return request.containerRequests.map(({ devicesIds }) => ({
    envs: { [`${TOKENS_VARIABLE}${resource}`]: devicesIds.join(",") },
  }));
}

function prefer({ containerRequests }: PreferredAllocationRequest, { resource, offer, log }: PluginServiceOptions) {
  const containerResponses = containerRequests.map((request) => {
    const available = request.availableDeviceIDs;
    const mustInclude = request.mustIncludeDeviceIDs;
    const size = request.allocationSize;
    const chosen = [...new Set(offer.preferred(resource, { available, mustInclude, size }))];
    const isSound =
      chosen.length === size &&
      mustInclude.every((id) => chosen.includes(id)) &&
      chosen.every((id) => available.includes(id) || mustInclude.includes(id));
    if (isSound) return { deviceIDs: chosen };
    // Kubelet takes an answer as it is and then lacks devices: no preference is better than a wrong one.
    log.warn("preference-invalid", { resource, desired: size, available: available.length, chosen: chosen.length });
    return { deviceIDs: [...new Set([...mustInclude, ...available])].slice(0, Math.max(size, mustInclude.length)) };
  });
  return { containerResponses };
}

/** The open ListAndWatch streams: one, unless kubelet has lost track of an earlier one. */
class Streams {
  readonly #options: PluginServiceOptions;
  #open = 0;

  constructor(options: PluginServiceOptions) {
    this.#options = options;
  }

  /** The list at once and after every change, until kubelet goes: nothing of ours ends the stream. */
  async *follow(call: Call): AsyncGenerator<Uint8Array> {
    const { resource, offer, list, clock, log } = this.#options;
    const bell = new Wakeup(clock);
    const stop = offer.onChange((changed) => {
      if (changed.has(resource)) bell.ring();
    });
    this.#count(1);
    try {
      let published: Uint8Array | undefined;
      let publishedMs = Number.NEGATIVE_INFINITY;
      while (!call.signal.aborted) {
        const devices = offer.devices(resource);
        const now = list.encode(devices);
        if (now !== published || clock.monotonicMs() - publishedMs >= REPEAT_MS) {
          const healthy = devices.reduce((count, one) => count + (one.healthy ? 1 : 0), 0);
          log.debug("devices-published", { resource, healthy, all: devices.length });
          published = now;
          publishedMs = clock.monotonicMs();
          yield now;
          await clock.sleep(GAP_MS, call.signal).catch(() => {}); // only the end of the call ends it early
        }
        await bell.wait(REPEAT_MS, call.signal);
      }
    } finally {
      stop();
      this.#count(-1);
    }
  }

  #count(change: 1 | -1): void {
    this.#open += change;
    this.#options.onStreams(this.#open);
  }
}
