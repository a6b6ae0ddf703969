// The node's allocator: offers resources to kubelet as a device plugin (v1beta1) and hands tokens to pods.
// It knows device ids and sockets, and nothing of what an id stands for: that is behind TokenSource. Start reading at
// plugin.ts, the life of one resource with kubelet, and at token-life.ts, the life of one device id with its pod.
export { CHECKPOINT_FILE, type Checkpoint, parseCheckpoint } from "./checkpoint.ts";
export { type DevicePlugins, type DevicePluginsOptions, startDevicePlugins } from "./device-plugins.ts";
export { type AllocatableDevices, ForeignDevices } from "./foreign-devices.ts";
export { TOKENS_VARIABLE } from "./plugin-service.ts";
export {
  type DeviceHolder,
  type PodHoldings,
  type PodResources,
  type PodResourcesOptions,
  type PodResourcesState,
  startPodResources,
} from "./pod-resources.ts";
export type { PluginFolder } from "./resource-registration.ts";
export { type Findings, type Sight, TokenLife } from "./token-life.ts";
export type { Device, Preference, TokenSource } from "./token-source.ts";
