// The node's allocator: offers resources to kubelet as a device plugin (v1beta1) and hands tokens to pods.
// It knows device ids and sockets; what an id stands for is the inventory's. Start reading at resource-registration.ts, the life of one
// resource with kubelet, and at pod-tokens.ts and token-life.ts, the life of one device id with its pod.
export { CHECKPOINT_FILE, parseCheckpoint } from "./checkpoint.ts";
export { type CheckpointFile, openCheckpoint, type TokenPod } from "./checkpoint-file.ts";
export { DevicePlugins } from "./device-plugins.ts";
export { type AllocatableDevices, ForeignDevices } from "./foreign-devices.ts";
export { PodResources } from "./pod-resources.ts";
export { PodTokens } from "./pod-tokens.ts";
