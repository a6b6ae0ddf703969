import { UnsyncedDisk } from "../unsynced-disk.ts";
import { killInKernel } from "./killed-kernel.ts";

killInKernel(
  "a forwarder that is killed, and whose disk loses what was not synced",
  () => true,
  () => new UnsyncedDisk(),
);
