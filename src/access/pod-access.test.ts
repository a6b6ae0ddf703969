import assert from "node:assert/strict";
import { test } from "node:test";
import type { CgroupFolder } from "../kernel/index.ts";
import { recordingLog } from "../telemetry/recording-log.ts";
import type { PodFinder } from "./find-pod-cgroup.ts";
import { HeldGrant } from "./held-grant.ts";
import { PodAccess } from "./pod-access.ts";
import type { Cgroup, Rules } from "./rules.ts";

const UID = "0f3b7c1e-9d5a-4c61-8a3e-2b1f6d7e8c90";
const POD = `kubepods/pod${UID}`;
const device = { major: 245, minor: 7 };

/** A pod of two containers, of which the cgroup `refusing` takes no rule. */
function podOf({ refusing }: { readonly refusing: string }) {
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
      open.add(path);
      return { devices, wrote: [] };
    },
    async withdraw({ path }) {
      open.delete(path);
      return [];
    },
    isInForce: async ({ path }) => open.has(path),
    strays: async () => [],
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
  const grant = HeldGrant.ofRequest({
    connectionId: "c1",
    pod: { uid: UID },
    cgroupDir: "",
    devices: [device],
    record,
  });
  return { pod, grant, open };
}

test("PodAccess.apply() that fails at one container undoes what it gave to the others", async () => {
  const { pod, grant, open } = podOf({ refusing: `${POD}/two` });
  await assert.rejects(pod.apply(grant), /two takes no rule/);
  assert.deepEqual([[...open], grant.isKept], [[], false]);
});
