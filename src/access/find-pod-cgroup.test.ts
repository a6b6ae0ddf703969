import assert from "node:assert/strict";
import { test } from "node:test";
import { type CgroupFolder, KernelError } from "../kernel/index.ts";
import { kubepodsTrees, PodFinder } from "./find-pod-cgroup.ts";

const [POD, FORGED] = ["0f3b7c1e-9d5a-4c61-8a3e-2b1f6d7e8c90", "1a2b3c4d-9d5a-4c61-8a3e-2b1f6d7e8c90"];

/** A hierarchy of these cgroups and those above them. */
function rootOf(paths: readonly string[]): CgroupFolder {
  const folderAt = (names: readonly string[]): CgroupFolder =>
    ({
      children() {
        const below = paths
          .map((path) => path.split("/"))
          .filter((path) => names.every((name, at) => path[at] === name));
        return [...new Set(below.flatMap((path) => path[names.length] ?? []))];
      },
      beneath(path: string) {
        const whole = [...names, ...path.split("/")].join("/");
        if (!paths.some((one) => `${one}/`.startsWith(`${whole}/`))) throw new KernelError(`open ${whole}`, 2);
        return folderAt(whole.split("/"));
      },
      close() {},
    }) as unknown as CgroupFolder;
  return folderAt([]);
}

test("kubepodsTrees() finds the trees of pods down to a depth, and none that an unprivileged user can make", () => {
  const root = rootOf([
    "user.slice/kubepods",
    "user.slice/user-1000.slice/kubepods",
    "kubepods/burstable",
    "kubelet.slice/kubelet-kubepods.slice",
  ]);
  assert.deepEqual(kubepodsTrees(root), ["kubepods", "kubelet.slice/kubelet-kubepods.slice"]);
});

test("PodFinder.uids() does not take a user's cgroup for a pod's", () => {
  const root = rootOf([`user.slice/user-1000.slice/kubepods/pod${FORGED}`, `kubepods/burstable/pod${POD}`]);
  assert.deepEqual(new PodFinder(root).uids(), [POD]);
});

test("PodFinder.find() finds a pod's cgroup where kubelet has moved the tree while we run", () => {
  const paths = [`kubepods/burstable/pod${POD}`];
  const root = rootOf(paths);
  const finder = new PodFinder(root);
  assert.equal(finder.find(POD), `kubepods/burstable/pod${POD}`);
  paths.push(`kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod${FORGED.replaceAll("-", "_")}.slice`);
  assert.equal(finder.find(FORGED), paths[1]);
  assert.equal(finder.find(POD), paths[0], "the host keeps what was there");
});
