import assert from "node:assert/strict";
import { test } from "node:test";
import type { CgroupFolder, DeviceNumber } from "../kernel/index.ts";
import { recordingLog } from "../telemetry/recording-log.ts";
import type { PodFinder } from "./find-pod-cgroup.ts";
import { HeldGrant } from "./held-grant.ts";
import { PodAccess } from "./pod-access.ts";
import { type Cgroup, deviceText, type Rules } from "./rules.ts";

const UID = "0f3b7c1e-9d5a-4c61-8a3e-2b1f6d7e8c90";
const POD = `kubepods/pod${UID}`;
const device = { major: 245, minor: 7 };

/** A pod of two containers, of which the cgroup `refusing` takes no rule. */
function podOf({ refusing }: { readonly refusing?: string }) {
  const folderOf = (path: string): CgroupFolder =>
    ({
      identity: path,
      children: () => (path === POD ? ["one", "two"] : []),
      beneath: (name: string) => folderOf(path === "" ? name : `${path}/${name}`),
      onChange: () => () => {},
      close() {},
    }) as unknown as CgroupFolder;
  const open = new Set<string>();
  const rules: Rules = {
    async allow({ path }: Cgroup, devices) {
      if (path === refusing) throw new Error(`${path} takes no rule`);
      const missing = devices.filter((one) => !open.has(`${path} ${deviceText(one)}`));
      for (const one of missing) open.add(`${path} ${deviceText(one)}`);
      return missing.length > 0 ? { devices: missing, wrote: [] } : undefined;
    },
    async withdraw({ path }, { devices }) {
      for (const one of devices) open.delete(`${path} ${deviceText(one)}`);
      return [];
    },
    isInForce: async ({ path }, devices) => devices.every((one) => open.has(`${path} ${deviceText(one)}`)),
    strays: async () => [],
    rulesFor: () => [],
    fingerprint: async () => "",
  };
  const pod = new PodAccess(UID, {
    root: folderOf(""),
    finder: { find: () => POD } as unknown as PodFinder,
    rules,
    log: recordingLog(),
    onRepair: () => assert.fail("nothing was there"),
    onChange() {},
    onBlind() {},
    onGone: () => assert.fail("the pod is there"),
  });
  const record = async () => {};
  const grantOf = (connectionId: string, devices: readonly DeviceNumber[]) =>
    HeldGrant.ofRequest({ connectionId, pod: { uid: UID }, cgroupDir: "", devices, record });
  return { pod, grant: grantOf("c1", [device]), grantOf, open };
}

test("PodAccess.apply() that fails at one container undoes what it gave to the others", async () => {
  const { pod, grant, open } = podOf({ refusing: `${POD}/two` });
  await assert.rejects(pod.apply(grant), /two takes no rule/);
  assert.deepEqual([[...open], grant.isKept], [[], false]);
});

test("PodAccess.apply() gives a pod that has a device already another one, too", async () => {
  const { pod, grant, grantOf, open } = podOf({});
  await pod.apply(grant);
  const second = { major: 245, minor: 8 };
  await pod.apply(grantOf("c2", [second]));
  const expected = ["", "/one", "/two"].flatMap((path) => [`${POD}${path} 245:7`, `${POD}${path} 245:8`]);
  assert.deepEqual([...open].sort(), expected);
});
