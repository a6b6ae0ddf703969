import type { CgroupFolder } from "../kernel/index.ts";
import type { PodFinder } from "./find-pod-cgroup.ts";
import { isMeant } from "./pod-name.ts";
import { type Cgroup, isGone, unlessGone } from "./rules.ts";

/**
 * A pod may make as many cgroups within its own as it likes, and each that we hold open takes a descriptor and a watch. The
 * rules of one further down follow from those above it.
 */
const MAX_CGROUPS = 256;

interface HeldCgroup extends Cgroup {
  readonly identity: string;
  readonly stopWatching: () => void;
}

export interface TreeListener {
  /** After a cgroup has come or gone, or a file of one was written. */
  readonly onChange: () => void;
  /** The kernel sends no events of a cgroup: the errno's name says why. */
  readonly onBlind: (code: string) => void;
}

/** The cgroups of one pod, held open and watched. */
export class PodTree {
  readonly path: string;
  readonly #listener: TreeListener;
  /** There are more than we hold. */
  isCut = false;
  #cgroups: readonly HeldCgroup[] = [];

  private constructor(path: string, listener: TreeListener) {
    this.path = path;
    this.#listener = listener;
  }

  /** Undefined when the pod has no cgroup. */
  static open(
    { root, finder }: { readonly root: CgroupFolder; readonly finder: PodFinder },
    uid: string,
    listener: TreeListener,
  ): PodTree | undefined {
    const path = finder.find(uid);
    if (path === undefined) return undefined;
    const tree = new PodTree(path, listener);
    const own = tree.#hold(() => root.beneath(path), { path });
    if (!own) return undefined;
    tree.#cgroups = [own];
    tree.refresh();
    return tree;
  }

  /** Those above first; the first is the pod's own. None when the pod has gone. */
  get cgroups(): readonly Cgroup[] {
    return this.#cgroups;
  }

  /** The pod's own cgroup, those of the containers that the pattern means, and all beneath these. */
  meant(containers: string): readonly Cgroup[] {
    return this.#cgroups.filter(({ path }) => {
      const [container] = path.slice(this.path.length + 1).split("/");
      return container === "" || isMeant(container ?? "", containers);
    });
  }

  /** Reads the folders again. */
  refresh(): void {
    const [own] = this.#cgroups;
    if (!own) return;
    const known = new Map(this.#cgroups.map((cgroup) => [cgroup.path, cgroup]));
    const found: HeldCgroup[] = [own];
    this.isCut = false;
    for (const at of found) {
      if (this.isCut) break;
      const names = unlessGone(undefined, () => at.folder.children());
      if (names === undefined && at === own) {
        this.close();
        return;
      }
      const room = MAX_CGROUPS - found.length;
      this.isCut = (names?.length ?? 0) > room;
      for (const name of names?.slice(0, room) ?? []) {
        const child = this.#sameOrNew(known, { parent: at, name });
        if (child) found.push(child);
      }
    }
    for (const cgroup of this.#cgroups) if (!found.includes(cgroup)) release(cgroup);
    this.#cgroups = found;
  }

  close(): void {
    for (const cgroup of this.#cgroups) release(cgroup);
    this.#cgroups = [];
  }

  /** A cgroup can be removed, and another one made under its name. */
  #sameOrNew(
    known: ReadonlyMap<string, HeldCgroup>,
    { parent, name }: { readonly parent: HeldCgroup; readonly name: string },
  ): HeldCgroup | undefined {
    const path = `${parent.path}/${name}`;
    return this.#hold(() => parent.folder.beneath(name), { path, before: known.get(path) });
  }

  #hold(
    open: () => CgroupFolder,
    { path, before }: { readonly path: string; readonly before?: HeldCgroup | undefined },
  ): HeldCgroup | undefined {
    const { onChange, onBlind } = this.#listener;
    let folder: CgroupFolder | undefined;
    try {
      folder = open();
      const { identity } = folder;
      if (before?.identity !== identity) {
        return { path, folder, identity, stopWatching: folder.onChange(onChange, onBlind) };
      }
      folder.close();
      return before;
    } catch (error) {
      folder?.close();
      if (isGone(error)) return undefined;
      throw error;
    }
  }
}

function release({ folder, stopWatching }: HeldCgroup): void {
  stopWatching();
  folder.close();
}
