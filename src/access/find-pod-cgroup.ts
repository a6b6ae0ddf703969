import { dirname, join } from "node:path";
import { type Clock, messageOf } from "../async/index.ts";
import { BlockingWrites, CgroupFolder, cgroupVersionOf, KernelError, type TextWrites } from "../kernel/index.ts";
import { AccessError } from "./error.ts";
import { isKubepods, podPaths, podUidOf } from "./pod-name.ts";

/** Kubelets put their tree at the top, or beneath the folder that --cgroup-root names: kind has kubelet.slice. */
const SEARCH_DEPTH = 3;
/** Unprivileged users may make cgroups of any name beneath it. */
const USERS = "user.slice";

/** The host's cgroups that decide about devices. */
interface Hierarchy {
  readonly version: 1 | 2;
  /** Where it is mounted for us, or the part of it that we were given. */
  readonly path: string;
  readonly root: CgroupFolder;
}

/**
 * The hierarchy at the path. Where the path is none, as on a unified host, the one that would hold it; on a hybrid host
 * without version 1 devices, systemd mounts the unified hierarchy beside the others.
 * @throws {AccessError} no-hierarchy.
 */
export function openHierarchy(path: string, clock: Clock, writes: TextWrites = new BlockingWrites(clock)): Hierarchy {
  const refuse = (problem: string) => new AccessError({ kind: "no-hierarchy", path, problem });
  const places = withParents(path).flatMap((place) => [place, join(place, "unified")]);
  for (const place of places) {
    const version = cgroupVersionOf(place);
    if (version === undefined) continue;
    const root = openRoot(place, { writes, refuse });
    if (version === 2 || root.has("devices.allow")) return { version, path: place, root };
    root.close();
    throw refuse(`${place} is a version 1 hierarchy of another controller than devices`);
  }
  throw refuse("no cgroup file system is mounted there or above");
}

/** The path, its parent, and so on up to the root. */
function withParents(path: string): readonly string[] {
  const above = dirname(path);
  return above === path ? [path] : [path, ...withParents(above)];
}

function openRoot(
  path: string,
  { writes, refuse }: { readonly writes: TextWrites; readonly refuse: (problem: string) => AccessError },
): CgroupFolder {
  try {
    return CgroupFolder.open(path, writes);
  } catch (error) {
    throw refuse(messageOf(error));
  }
}

/** Paths of the cgroups that hold pods, those nearest to the root first. Several: a host keeps what another driver made. */
export function kubepodsTrees(root: CgroupFolder): readonly string[] {
  const found: string[] = [];
  let level: readonly string[] = [""];
  for (let depth = 0; depth < SEARCH_DEPTH; depth++) {
    const below = level.flatMap((path) => childPaths(root, path));
    found.push(...below.filter((path) => isKubepods(lastName(path))));
    level = below.filter((path) => !isKubepods(lastName(path)) && path !== USERS);
  }
  return found;
}

/** Finds the cgroups of pods. Looks up once where the pods' tree is, and again when it has moved. */
export class PodFinder {
  readonly #root: CgroupFolder;
  #trees: readonly string[] = [];

  constructor(root: CgroupFolder) {
    this.#root = root;
  }

  /** The path of the pod's cgroup; undefined when it has none. */
  find(uid: string): string | undefined {
    const known = this.#existing(uid);
    if (known !== undefined) return known;
    this.#trees = kubepodsTrees(this.#root);
    return this.#existing(uid);
  }

  /** UIDs of all pods that have a cgroup now. */
  uids(): readonly string[] {
    this.#trees = kubepodsTrees(this.#root);
    const found = new Set<string>();
    for (const tree of this.#trees) {
      const children = childPaths(this.#root, tree);
      const below = children.flatMap((path) => (podUidOf(lastName(path)) ? [] : childPaths(this.#root, path)));
      for (const path of [...children, ...below]) {
        const uid = podUidOf(lastName(path));
        if (uid !== undefined) found.add(uid);
      }
    }
    return [...found];
  }

  #existing(uid: string): string | undefined {
    return this.#trees.flatMap((tree) => podPaths(tree, uid)).find((path) => exists(this.#root, path));
  }
}

function lastName(path: string): string {
  return path.slice(path.lastIndexOf("/") + 1);
}

function exists(root: CgroupFolder, path: string): boolean {
  try {
    root.beneath(path).close();
    return true;
  } catch {
    return false;
  }
}

/** A cgroup that goes away while it is read has no children. */
function childPaths(root: CgroupFolder, path: string): readonly string[] {
  let folder: CgroupFolder | undefined;
  try {
    folder = path === "" ? root : root.beneath(path);
    const names = folder.children();
    return names.map((name) => (path === "" ? name : `${path}/${name}`));
  } catch (error) {
    if (error instanceof KernelError) return [];
    throw error;
  } finally {
    if (folder !== root) folder?.close();
  }
}
