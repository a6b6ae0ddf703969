import assert from "node:assert/strict";
import { test } from "node:test";
import { type CgroupFolder, Errno, KernelError } from "../kernel/index.ts";
import type { PodFinder } from "./find-pod-cgroup.ts";
import { PodTree } from "./pod-tree.ts";

const POD = "kubepods/pod-a";

/** Cgroups by path, each with the identity that it has now. */
function setUp(paths: readonly string[]) {
  const node = {
    now: new Map(paths.map((path) => [path, path])),
    open: 0,
    watched: 0,
    /** Where one goes away while it is opened, known, or listed. */
    goes: { path: "", at: "" },
  };
  const goesAt = (path: string, at: string) => node.goes.path === path && node.goes.at === at;
  const gone = (path: string) => new KernelError(`open ${path}`, Errno.ENOENT);
  const folderOf = (path: string): CgroupFolder => {
    const identity = path === "" ? "" : node.now.get(path);
    if (identity === undefined || goesAt(path, "open")) throw gone(path);
    node.open += 1;
    return {
      get identity() {
        if (goesAt(path, "identity")) throw gone(path);
        return identity;
      },
      children() {
        if (node.now.get(path) !== identity || goesAt(path, "list")) throw gone(path);
        const below = [...node.now.keys()].filter((one) => one.startsWith(`${path}/`));
        return below.map((one) => one.slice(path.length + 1)).filter((name) => !name.includes("/"));
      },
      beneath: (name: string) => folderOf(path === "" ? name : `${path}/${name}`),
      onChange() {
        node.watched += 1;
        return () => {
          node.watched -= 1;
        };
      },
      close() {
        node.open -= 1;
      },
    } as unknown as CgroupFolder;
  };
  const root = { beneath: (path: string) => folderOf(path) } as unknown as CgroupFolder;
  const finder = { find: () => (node.now.has(POD) ? POD : undefined) } as unknown as PodFinder;
  const open = () => PodTree.open({ root, finder }, "a", { onChange() {}, onBlind() {} });
  const opened = () => open() ?? assert.fail("it has a cgroup");
  return { node, open, opened };
}

const pathsOf = (cgroups: readonly { readonly path: string }[]) => cgroups.map(({ path }) => path);

test("PodTree holds and watches all cgroups of the pod, those above first, and lets go of all", () => {
  const { node, opened } = setUp([POD, `${POD}/app/inner`, `${POD}/app`, `${POD}/side`]);
  const tree = opened();
  assert.deepEqual(pathsOf(tree.cgroups), [POD, `${POD}/app`, `${POD}/side`, `${POD}/app/inner`]);
  assert.deepEqual(pathsOf(tree.meant("app")), [POD, `${POD}/app`, `${POD}/app/inner`]);
  assert.deepEqual([node.open, node.watched], [4, 4]);
  tree.close();
  assert.deepEqual([node.open, node.watched, tree.cgroups], [0, 0, []]);
});

test("PodTree.refresh() keeps what is the same, and takes a cgroup that was made again for another one", () => {
  const { node, opened } = setUp([POD, `${POD}/app`, `${POD}/side`, `${POD}/gone`]);
  const tree = opened();
  const [own, app, side] = tree.cgroups;
  node.now.set(`${POD}/app`, "made again");
  node.now.delete(`${POD}/gone`);
  node.now.set(`${POD}/new`, "new");
  tree.refresh();
  assert.deepEqual(pathsOf(tree.cgroups), [POD, `${POD}/app`, `${POD}/side`, `${POD}/new`]);
  assert.ok(tree.cgroups[0] === own && tree.cgroups[1] !== app && tree.cgroups[2] === side);
  assert.deepEqual([node.open, node.watched], [4, 4]);
});

test("PodTree has no cgroups when the pod's own has gone, and is none where there is none", () => {
  const { node, open, opened } = setUp([POD, `${POD}/app`]);
  const tree = opened();
  node.now.clear();
  tree.refresh();
  assert.deepEqual([tree.cgroups, node.open, node.watched], [[], 0, 0]);
  node.now.set(POD, "made again");
  tree.refresh();
  assert.deepEqual(tree.cgroups, [], "that is another pod's");
  node.now.clear();
  assert.equal(open(), undefined);
});

for (const [at, isHeld] of [
  ["open", false],
  ["identity", false],
  ["list", true],
] as const) {
  test(`PodTree does without a cgroup that goes away while it is read (${at})`, () => {
    const { node, open, opened } = setUp([POD, `${POD}/app`, `${POD}/app/inner`, `${POD}/side`]);
    node.goes = { path: `${POD}/app`, at };
    const tree = opened();
    assert.deepEqual(pathsOf(tree.cgroups), [POD, ...(isHeld ? [`${POD}/app`] : []), `${POD}/side`]);
    assert.equal(node.open, tree.cgroups.length);
    tree.close();
    node.goes = { path: POD, at };
    assert.equal(open()?.cgroups.length, isHeld ? 0 : undefined);
    assert.deepEqual([node.open, node.watched], [0, 0]);
  });
}

test("PodTree holds no more cgroups than it may, says so, and no longer when they have gone", () => {
  const many = Array.from({ length: 256 }, (_, index) => `${POD}/c${index}`);
  const { node, opened } = setUp([POD, ...many, `${POD}/c0/inner`]);
  const tree = opened();
  assert.deepEqual([tree.cgroups.length, tree.isCut, node.open], [256, true, 256]);
  node.now.delete(`${POD}/c255`);
  node.now.delete(`${POD}/c0/inner`);
  tree.refresh();
  assert.deepEqual([tree.cgroups.length, tree.isCut], [256, false]);
  node.now.set(`${POD}/c0/inner`, "one too many");
  tree.refresh();
  assert.equal(tree.isCut, true);
});
