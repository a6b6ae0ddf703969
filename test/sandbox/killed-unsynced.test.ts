import { UnsyncedDisk } from "../../sandbox/machine/unsynced-disk.ts";
import { killInKernel } from "./scenes/killed-kernel.ts";

killInKernel("a forwarder that is killed, and whose disk loses what was not synced", () => true, {
  makeDisk: () => new UnsyncedDisk(),
});
