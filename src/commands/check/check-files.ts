import { BlockingWrites, type HostFiles, openHostFiles } from "../../kernel/index.ts";
import type { CommandSettings } from "../command.ts";

/** The parts of the node that a test puts others in place of. */
export interface CheckFiles {
  readonly devices: HostFiles;
  readonly drivers: HostFiles;
  readonly vfio: HostFiles;
  /** /proc */
  readonly proc: HostFiles;
  /** /sys */
  readonly sys: HostFiles;
}

/** The files of this machine. */
export function openCheckFiles(settings: CommandSettings): CheckFiles {
  const writes = new BlockingWrites();
  return {
    devices: openHostFiles(settings.pciDevicesPath, writes),
    drivers: openHostFiles(settings.pciDriversPath, writes),
    vfio: openHostFiles(settings.vfioPath, writes),
    proc: openHostFiles("/proc", writes),
    sys: openHostFiles("/sys", writes),
  };
}
