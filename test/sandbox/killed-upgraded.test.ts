// An upgrade by force at each step of a Request, a Close and a change: the next forwarder has another name and another SPIFFE ID.
import { UnsyncedDisk } from "../../sandbox/machine/unsynced-disk.ts";
import { killInKernel } from "./scenes/killed-kernel.ts";

killInKernel("a forwarder that is killed and upgraded, and whose disk loses what was not synced", () => true, {
  makeDisk: () => new UnsyncedDisk(),
  isUpgraded: true,
});
