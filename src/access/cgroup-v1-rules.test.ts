import assert from "node:assert/strict";
import { test } from "node:test";
import { type CgroupFolder, Errno, KernelError } from "../kernel/index.ts";
import { CgroupV1Rules } from "./cgroup-v1-rules.ts";
import { AccessError } from "./error.ts";

const device = { major: 245, minor: 7 };
const POD = "kubepods/pod-a/app";

/** Cgroups as the kernel keeps them, but where `writes` says otherwise; `refused` is why a rule is not taken. */
function cgroupsOf(lists: Readonly<Record<string, string>>) {
  const now = new Map(Object.entries(lists));
  const node = { keepsDenied: false, refused: undefined as keyof typeof Errno | undefined, open: 0 };
  const beneath = (path: string) => {
    node.open += 1;
    return {
      readText() {
        const list = now.get(path);
        if (list === undefined) throw new KernelError(`read ${path}`, Errno.ENOENT);
        return list;
      },
      async writeText(file: string, rule: string) {
        if (file === "devices.allow" && node.refused) throw new KernelError(`write ${path}`, Errno[node.refused]);
        if (file === "devices.allow") now.set(path, `${now.get(path)}${rule}\n`);
        else if (!node.keepsDenied) now.set(path, (now.get(path) ?? "").replace(`${rule}\n`, ""));
      },
      close() {
        node.open -= 1;
      },
    } as unknown as CgroupFolder;
  };
  const rules = new CgroupV1Rules({ beneath } as unknown as CgroupFolder);
  const cgroup = { path: POD, folder: beneath(POD) };
  const allow = () => rules.allow(cgroup, [device], async () => {});
  return { node, now, rules, cgroup, allow };
}

test("CgroupV1Rules.withdraw() says what is still in force after the kernel has taken the order", async () => {
  const { node, now, rules, cgroup, allow } = cgroupsOf({ [POD]: "c 1:3 rwm\n" });
  const ours = (await allow()) ?? assert.fail("nothing was written");
  assert.equal(now.get(POD), "c 1:3 rwm\nc 245:7 rw\n");
  node.keepsDenied = true;
  assert.deepEqual(await rules.withdraw(cgroup, ours), [`${POD} still has c 245:7 rw`]);
  node.keepsDenied = false;
  assert.deepEqual(await rules.withdraw(cgroup, ours), []);
  assert.equal(now.get(POD), "c 1:3 rwm\n");
});

test("CgroupV1Rules.withdraw() reports a rule of which one letter is still in force", async () => {
  const { now, rules, cgroup, allow } = cgroupsOf({ [POD]: "" });
  const ours = (await allow()) ?? assert.fail("nothing was written");
  now.set(POD, "c 245:7 w\n");
  assert.deepEqual(await rules.withdraw(cgroup, ours), [`${POD} still has c 245:7 rw`]);
});

test("CgroupV1Rules.allow() names the cgroup above that does not have the device", async () => {
  const { node, allow } = cgroupsOf({ kubepods: "a *:* rwm\n", "kubepods/pod-a": "c 1:3 rwm\n", [POD]: "" });
  node.refused = "EPERM";
  const fault = { kind: "refused-above", cgroup: "kubepods/pod-a", device: "245:7", by: "devices.list" };
  await assert.rejects(allow(), { fault });
  assert.equal(node.open, 1, "only the container's own cgroup is open still");
});

for (const [says, refused, above] of [
  ["though all above have the device", "EPERM", "a *:* rwm\n"],
  ["for another reason", "EINVAL", ""],
] as const) {
  test(`CgroupV1Rules.allow() reports the kernel's word where it refuses ${says}`, async () => {
    const { node, allow } = cgroupsOf({ kubepods: above, "kubepods/pod-a": above, [POD]: "" });
    node.refused = refused;
    await assert.rejects(
      allow(),
      (error) => error instanceof AccessError && error.fault.kind === "not-taken" && error.message.includes(refused),
    );
  });
}

test("CgroupV1Rules.allow() has nothing to do in a cgroup that has gone", async () => {
  const { node, now, allow } = cgroupsOf({ [POD]: "" });
  node.refused = "ENODEV";
  now.delete(POD);
  assert.equal(await allow(), undefined);
});
