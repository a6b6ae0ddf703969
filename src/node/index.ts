// This node: which PFs and VFs it has now and what is wrong with them, and its outside as an interface,
// which the sandbox pretends. Knows no client, no connection and no peer.
// Start reading at node.ts; pf-survey.ts observes, node-watch.ts says when to observe again.
export type { Host, HostLocks } from "./host.ts";
export { machineDoors, openLinuxHost } from "./linux-host.ts";
export { type Node, openNode } from "./node.ts";
export { type PfConfigFile, watchNode } from "./node-watch.ts";
export { openPfConfigFile } from "./pf-config-file.ts";
export type { PfDoor } from "./pf-survey.ts";
