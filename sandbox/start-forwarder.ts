import { type Forwarder, type ForwarderOptions, startForwarder } from "../src/forwarder.ts";
import { requireOwnNetns } from "./own-netns.ts";

/**
 * The one way to a forwarder that works on links of this machine's kernel (the import check sees to it): refused where the node's network
 * namespace is not the sandbox's own. The simulation, whose links are in memory, starts one by itself.
 * @throws {ForeignNetnsError} and what `startForwarder` throws.
 */
export async function startSandboxForwarder(options: ForwarderOptions): Promise<Forwarder> {
  await requireOwnNetns(options.host.netns);
  return await startForwarder(options);
}
