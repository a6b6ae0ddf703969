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
  type Code = keyof typeof Errno | undefined;
  const node = {
    keepsDenied: false,
    refused: undefined as Code,
    refusedDeny: undefined as Code,
    takes: 99,
    open: 0,
    ends: false,
  };
  const refusalOf = (path: string, isAllow: boolean): Code => {
    if (node.ends) now.delete(path);
    if (node.ends) return "ENODEV";
    if (!isAllow) return node.refusedDeny;
    return node.refused ?? (node.takes-- === 0 ? "EINVAL" : undefined);
  };
  const beneath = (path: string) => {
    node.open += 1;
    return {
      readText() {
        const list = now.get(path);
        if (list === undefined) throw new KernelError(`read ${path}`, Errno.ENOENT);
        return list;
      },
      async writeText(file: string, rule: string) {
        const isAllow = file === "devices.allow";
        const refusal = refusalOf(path, isAllow);
        if (refusal) throw new KernelError(`write ${path}`, Errno[refusal]);
        if (isAllow) now.set(path, `${now.get(path)}${rule}\n`);
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

test("CgroupV1Rules.allow() writes nothing that was not recorded before, and undoes what it wrote before a failure", async () => {
  const { node, now, rules, cgroup } = cgroupsOf({ [POD]: "" });
  const recorded: string[] = [];
  node.takes = 1;
  const intend = async () => void recorded.push(now.get(POD) ?? "gone");
  await assert.rejects(rules.allow(cgroup, [device, { major: 10, minor: 196 }], intend), /EINVAL/);
  assert.deepEqual([recorded, now.get(POD)], [[""], ""]);
});

test("CgroupV1Rules.withdraw() says of a rule that the kernel does not take away why", async () => {
  const { node, rules, cgroup, allow } = cgroupsOf({ [POD]: "" });
  const ours = (await allow()) ?? assert.fail("nothing was written");
  node.refusedDeny = "EPERM";
  const [left] = await rules.withdraw(cgroup, ours);
  assert.match(left ?? "", /pod-a\/app keeps its rules: .*EPERM/);
});

test("CgroupV1Rules.allow() names the highest of the cgroups above that do not have the device", async () => {
  const { node, allow } = cgroupsOf({ kubepods: "", "kubepods/pod-a": "", [POD]: "" });
  node.refused = "EPERM";
  await assert.rejects(allow(), {
    fault: { kind: "refused-above", cgroup: "kubepods", device: "245:7", by: "devices.list" },
  });
});

test("CgroupV1Rules.isInForce() has nothing against a cgroup that has gone", async () => {
  const { now, rules, cgroup } = cgroupsOf({ [POD]: "" });
  assert.equal(await rules.isInForce(cgroup, [device]), false);
  now.delete(POD);
  assert.equal(await rules.isInForce(cgroup, [device]), true);
});

test("CgroupV1Rules.allow() takes it well that a cgroup ends while it is written to", async () => {
  const { node, allow } = cgroupsOf({ [POD]: "" });
  node.ends = true;
  assert.deepEqual((await allow())?.devices, [device]);
});

test("CgroupV1Rules.allow() says why it failed, though it could not undo the rest", async () => {
  const { node, now, rules, cgroup } = cgroupsOf({ [POD]: "" });
  node.takes = 1;
  node.refusedDeny = "EPERM";
  const allowing = rules.allow(cgroup, [device, { major: 10, minor: 196 }], async () => {});
  await assert.rejects(allowing, /EINVAL/);
  assert.equal(now.get(POD), "c 245:7 rw\n");
});

test("CgroupV1Rules.withdraw() denies nothing that is gone already", async () => {
  const { node, now, rules, cgroup, allow } = cgroupsOf({ [POD]: "" });
  const ours = (await allow()) ?? assert.fail("nothing was written");
  now.set(POD, "c 245:* rwm\n");
  node.refusedDeny = "EPERM";
  assert.deepEqual(await rules.withdraw(cgroup, ours), []);
});

test("CgroupV1Rules.strays() are rules for exactly one managed device that no grant explains", async () => {
  const { rules, cgroup } = cgroupsOf({ [POD]: "c 245:7 rw\nc 245:8 r\nc 245:9 m\nc 246:* rw\nc 1:3 rwm\n" });
  const managed = [7, 8, 9].map((minor) => ({ major: 245, minor }));
  const strays = await rules.strays(cgroup, { explained: [device], managed: [...managed, { major: 246, minor: 1 }] });
  assert.deepEqual(strays, [{ major: 245, minor: 8 }]);
});

test("CgroupV1Rules.rulesFor() are the rules for exactly these devices, with all that they allow", () => {
  const { rules, cgroup } = cgroupsOf({ [POD]: "c 245:7 rwm\nc 245:8 rw\nc 245:* rwm\na *:* rwm\n" });
  const other = { major: 246, minor: 1 };
  assert.deepEqual(rules.rulesFor(cgroup, [device, other]), [{ ...device, cgroup: POD, access: "rwm" }]);
  assert.deepEqual(cgroupsOf({}).rules.rulesFor(cgroup, [other]), []);
});
