import assert from "node:assert/strict";
import { test } from "node:test";
import { readProcessLimits } from "./process-limits.ts";

const MIB = 1024 * 1024;
const LIMITS =
  "Limit   Soft Limit   Hard Limit   Units\nMax open files            1024                 524288               files\n";

function filesOf(files: Readonly<Record<string, string>>) {
  return {
    async readText(path: string): Promise<string> {
      const text = files[path];
      if (text === undefined) throw new Error(`no ${path}`);
      return text;
    },
  };
}

const rows = [
  {
    says: "of a container with a cgroup namespace, version 2",
    cgroup: "0::/",
    cgroups: { "memory.max": `${256 * MIB}` },
    is: 256 * MIB,
  },
  {
    says: "of a container that sees the host's tree, version 2",
    cgroup: "0::/kubepods.slice/pod1.slice/c1.scope",
    cgroups: {
      "kubepods.slice/memory.max": "max",
      "kubepods.slice/pod1.slice/memory.max": `${128 * MIB}`,
      "kubepods.slice/pod1.slice/c1.scope/memory.max": `${256 * MIB}`,
    },
    is: 128 * MIB,
  },
  {
    says: "of a container that has less than its pod",
    cgroup: "0::/pod1/c1",
    cgroups: { "pod1/memory.max": `${256 * MIB}`, "pod1/c1/memory.max": `${64 * MIB}` },
    is: 64 * MIB,
  },
  {
    says: "of version 1, where it is mounted with another controller",
    cgroup: "7:cpu,memory:/c1",
    cgroups: { "memory/c1/memory.limit_in_bytes": `${96 * MIB}` },
    is: 96 * MIB,
  },
  {
    says: "of version 1, mounted as the container's own",
    cgroup: "12:cpu,cpuacct:/kubepods/pod1/c1\n7:memory:/kubepods/pod1/c1\n1:name=systemd:/kubepods/pod1/c1\n0::/",
    cgroups: { "memory/memory.limit_in_bytes": `${96 * MIB}` },
    is: 96 * MIB,
  },
  {
    says: "of version 1 where the host's tree is seen",
    cgroup: "7:memory:/kubepods/pod:1/c1",
    cgroups: {
      "memory/memory.limit_in_bytes": "9223372036854771712",
      "memory/kubepods/pod:1/c1/memory.limit_in_bytes": `${200 * MIB}`,
    },
    is: 200 * MIB,
  },
  { says: "none without a limit, version 2", cgroup: "0::/a", cgroups: { "a/memory.max": "max" }, is: undefined },
  {
    says: "none without a limit, version 1",
    cgroup: "7:memory:/",
    cgroups: { "memory/memory.limit_in_bytes": "9223372036854771712" },
    is: undefined,
  },
  { says: "none where nothing can be read", cgroup: undefined, cgroups: {}, is: undefined },
  {
    says: "of the root where the path climbs",
    cgroup: "0::/../a",
    cgroups: { "memory.max": `${MIB}`, "../a/memory.max": "1" },
    is: MIB,
  },
  {
    says: "none where the file says something else",
    cgroup: "0::/",
    cgroups: { "memory.max": "a lot" },
    is: undefined,
  },
] as const;

for (const { says, cgroup, cgroups, is } of rows) {
  test(`readProcessLimits() finds the memory ${says}`, async () => {
    const proc = filesOf(cgroup === undefined ? {} : { "self/cgroup": cgroup });
    const { memoryBytes } = await readProcessLimits({ proc, cgroups: filesOf(cgroups) });
    assert.equal(memoryBytes, is);
  });
}

test("readProcessLimits() finds the soft limit of descriptors, and none where there is none", async () => {
  const read = (limits: string) =>
    readProcessLimits({ proc: filesOf({ "self/limits": limits }), cgroups: filesOf({}) });
  assert.deepEqual(await read(LIMITS), { openFiles: 1024 });
  assert.deepEqual(await read(LIMITS.replace("1024  ", "unlimited")), {});
});
