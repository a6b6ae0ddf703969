import { readdir, readFile, readlink, stat } from "node:fs/promises";
import { basename } from "node:path";
import { type DeviceNumber, deviceNumberOf } from "./device-node.ts";

/**
 * Processes that have the device open, "4711 (testpmd)", as far as this process sees the host's. Reads only descriptors
 * of files with that name: a `stat` of every file of the node could hang on a dead network file system. Covers all
 * processes by default.
 */
export async function deviceHolders(
  name: string,
  device: DeviceNumber,
  pids?: readonly number[],
): Promise<readonly string[]> {
  const found: string[] = [];
  for (const pid of pids?.map(String) ?? (await readdir("/proc")).filter((entry) => /^\d+$/.test(entry))) {
    if (await holds(pid, name, device))
      found.push(`${pid} (${(await readFile(`/proc/${pid}/comm`, "utf8").catch(() => "?")).trim()})`);
  }
  return found;
}

async function holds(pid: string, name: string, device: DeviceNumber): Promise<boolean> {
  // Gone meanwhile, or not ours to read.
  const fds = await readdir(`/proc/${pid}/fd`).catch(() => []);
  for (const fd of fds) {
    const path = `/proc/${pid}/fd/${fd}`;
    if (basename(await readlink(path).catch(() => "")) !== name) continue;
    const node = await stat(path).catch(() => undefined);
    if (!node?.isCharacterDevice()) continue;
    const { major, minor } = deviceNumberOf(BigInt(node.rdev));
    if (major === device.major && minor === device.minor) return true;
  }
  return false;
}
