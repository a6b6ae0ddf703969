import type { RequestedNetdev } from "../desired.ts";

/** A network device with its name and nothing else, for a test to add to. */
export const bareNetdev: RequestedNetdev = {
  name: "nsm-1",
  addresses: [],
  peerAddresses: [],
  routes: [],
  policies: [],
  neighbours: [],
};
