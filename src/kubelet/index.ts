// The node's allocator: offers resources to kubelet as a device plugin (v1beta1) and hands tokens to pods.
// It knows device ids and sockets; which VF an id has is the inventory's. Start reading at resource-registration.ts, the life of one
// resource with kubelet, and at allocated-tokens.ts and token-life.ts, the life of one device id with its pod.

export { AllocatedTokens } from "./allocated-tokens.ts";
export { CHECKPOINT_FILE, parseCheckpoint } from "./checkpoint.ts";
export { DevicePlugins } from "./device-plugins.ts";
export { firstWord } from "./first-word.ts";
export { ForeignDevices } from "./foreign-devices.ts";
export { type PodHoldings, PodResources } from "./pod-resources.ts";
export { openCheckpoint, type PodsOfTokens, type TokenPod } from "./pods-of-tokens.ts";
