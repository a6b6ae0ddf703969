// What this process may take of its machine: read once, from the files of the kernel.
import type { ProcessLimits } from "../budgets.ts";
import { BlockingWrites, type HostFiles, openHostFiles } from "../kernel/index.ts";

interface LimitFiles {
  /** /proc */
  readonly proc: Pick<HostFiles, "readText">;
  /** /sys/fs/cgroup */
  readonly cgroups: Pick<HostFiles, "readText">;
}

/** Those of this process. */
export function processLimits(): Promise<ProcessLimits> {
  const writes = new BlockingWrites();
  return readProcessLimits({ proc: openHostFiles("/proc", writes), cgroups: openHostFiles("/sys/fs/cgroup", writes) });
}

/** What cannot be read is no limit. */
export async function readProcessLimits({ proc, cgroups }: LimitFiles): Promise<ProcessLimits> {
  const read = (files: LimitFiles["proc"], path: string) => files.readText(path).catch(() => "");
  const paths = memoryFiles(await read(proc, "self/cgroup"));
  const limits = await Promise.all(paths.map(async (path) => limitIn(await read(cgroups, path))));
  const openFiles = Number(/^Max open files\s+(\d+)/m.exec(await read(proc, "self/limits"))?.[1] ?? Number.NaN);
  const memoryBytes = Math.min(...limits.filter((limit) => limit !== undefined));
  return {
    ...(Number.isFinite(memoryBytes) && { memoryBytes }),
    ...(Number.isFinite(openFiles) && { openFiles }),
  };
}

/**
 * The files that may say it: of the process's own cgroup and of all above. In a cgroup namespace, or where a runtime mounts only its
 * container's part, the path of /proc/self/cgroup leads nowhere, and the root is the container's own.
 */
function memoryFiles(cgroup: string): readonly string[] {
  const lines = cgroup.split("\n").map((line) => line.split(":"));
  const pathOf = (isIt: (controllers: string) => boolean) =>
    lines
      .find(([, controllers]) => controllers !== undefined && isIt(controllers))
      ?.slice(2)
      .join(":");
  const unified = pathOf((controllers) => controllers === "");
  const memory = pathOf((controllers) => controllers.split(",").includes("memory"));
  return [
    ...ancestors(unified).map((path) => `${path}memory.max`),
    ...ancestors(memory).map((path) => `memory/${path}memory.limit_in_bytes`),
  ];
}

/** "", "a/", "a/b/" of "/a/b"; a path that climbs leads out of what we see. */
function ancestors(path: string | undefined): readonly string[] {
  if (path === undefined) return [];
  const parts = path.split("/").filter((part) => part !== "");
  const seen = parts.includes("..") ? [] : parts;
  return ["", ...seen.map((_, index) => `${seen.slice(0, index + 1).join("/")}/`)];
}

/** Version 1 writes the largest number of pages for no limit, version 2 "max". */
const NO_LIMIT_BYTES = 2 ** 53;

function limitIn(text: string): number | undefined {
  const bytes = /^\d+$/.test(text.trim()) ? Number(text) : Number.NaN;
  return bytes > 0 && bytes < NO_LIMIT_BYTES ? bytes : undefined;
}
