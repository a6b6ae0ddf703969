import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { PodCgroups } from "../../../sandbox/pod/pod-cgroups.ts";
import { BlockingWrites, CgroupFolder, deviceProgramsOf } from "../../../src/kernel/index.ts";

/**
 * What the kernel has of devices for each cgroup of the pods: the rules of version 1, the numbers of the attached programs of version 2. A program
 * that is attached again has another number.
 */
export function deviceRules(cgroups: PodCgroups | undefined): readonly string[] {
  return (cgroups?.folders() ?? []).map((path) => `${path}: ${rulesOf(path)}`);
}

function rulesOf(path: string): string {
  const list = join(path, "devices.list");
  if (existsSync(list)) return readFileSync(list, "utf8").trim().split("\n").join(", ");
  const folder = CgroupFolder.open(path, new BlockingWrites());
  try {
    return `programs ${deviceProgramsOf(folder.fd).ids.join(", ")}`;
  } finally {
    folder.close();
  }
}
