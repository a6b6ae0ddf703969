// A memory cgroup of version 1 or 2 for one process, as kubelet makes it for a container with resources.limits.memory.
import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  rmdirSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import { mountPoints } from "../needs.ts";

export const MIB = 1024 * 1024;

/** The files of one version. */
interface Version {
  readonly number: 1 | 2;
  readonly limit: string;
  readonly usage: string;
  /** The most that it ever was since this was last written to. */
  readonly peak: string;
  readonly events: string;
  /** How often the limit was reached, whether or not something could be reclaimed. */
  readonly reached: RegExp;
  readonly reachedFile: string;
}

const V1: Version = {
  number: 1,
  limit: "memory.limit_in_bytes",
  usage: "memory.usage_in_bytes",
  peak: "memory.max_usage_in_bytes",
  events: "memory.oom_control",
  reached: /^(\d+)/,
  reachedFile: "memory.failcnt",
};

const V2: Version = {
  number: 2,
  limit: "memory.max",
  usage: "memory.current",
  peak: "memory.peak",
  events: "memory.events",
  reached: /^max (\d+)$/m,
  reachedFile: "memory.events",
};

/** A hierarchy in which memory can be limited. */
interface Hierarchy {
  readonly root: string;
  readonly version: Version;
}

/**
 * Which of these can limit memory: the controller is in one hierarchy only, of version 1 or 2. One of version 2 gives it to its children
 * where its root says so, as systemd has it on a unified host.
 */
export function chooseHierarchy(
  mounts: { readonly v1: readonly string[]; readonly v2: readonly string[] },
  subtreeControl: (root: string) => string,
): Hierarchy | undefined {
  const [first] = mounts.v1;
  if (first !== undefined) return { root: first, version: V1 };
  const root = mounts.v2.find((mount) => subtreeControl(mount).trim().split(/\s+/).includes("memory"));
  return root === undefined ? undefined : { root, version: V2 };
}

/** Of this machine. @throws where neither version lets this process limit memory. */
export function memoryHierarchy(): Hierarchy {
  const mounts = { v1: mountPoints("cgroup", "memory"), v2: mountPoints("cgroup2") };
  const found = chooseHierarchy(mounts, (root) => readFileSync(join(root, "cgroup.subtree_control"), "utf8"));
  if (found) return found;
  const cause =
    "no cgroup of version 1 with the memory controller is mounted, and none of version 2 that gives it to its children";
  throw new Error(`Cannot limit memory: ${cause}`);
}

const NAME = /^hostile-(\d+)-\d+$/;

/** Removes what runs that were killed have left. */
export function removeLeftCgroups({ root }: Hierarchy): void {
  for (const name of readdirSync(root)) {
    const [, pid] = NAME.exec(name) ?? [];
    if (pid === undefined || existsSync(`/proc/${pid}`)) continue;
    try {
      rmdirSync(join(root, name));
    } catch {
      // a process is still in it
    }
  }
}

export class MemoryCgroup {
  readonly #folder: string;
  readonly #version: Version;
  /** From when the peak is that of version 2: who opens it again reads that of the cgroup's life (Linux 6.12). */
  #peak: number | undefined;

  private constructor(folder: string, version: Version) {
    this.#folder = folder;
    this.#version = version;
  }

  /** @throws where neither version lets this process limit memory. */
  static create(limitBytes: number): MemoryCgroup {
    const { root, version } = memoryHierarchy();
    const folder = join(root, `hostile-${process.pid}-${Math.round(limitBytes / MIB)}`);
    mkdirSync(folder, { recursive: true });
    const cgroup = new MemoryCgroup(folder, version);
    writeFileSync(join(folder, version.limit), String(limitBytes));
    if (version === V2) cgroup.#withoutSwap();
    return cgroup;
  }

  /** The words before a command that run it in here, from its first page of memory on. */
  get starter(): readonly string[] {
    return ["sh", "-ec", `echo $$ > ${join(this.#folder, "cgroup.procs")}; exec "$@"`, "sh"];
  }

  /** Processes that the kernel has killed here. */
  get oomKills(): number {
    return this.#number(this.#version.events, /^oom_kill (\d+)$/m);
  }

  /** How often the limit was reached. Pages of files count here, and are reclaimed then. */
  get limitReached(): number {
    return this.#number(this.#version.reachedFile, this.#version.reached);
  }

  get usageBytes(): number {
    return this.#number(this.#version.usage, /(\d+)/);
  }

  get peakBytes(): number {
    if (this.#peak === undefined) return this.#number(this.#version.peak, /(\d+)/);
    const bytes = Buffer.alloc(32);
    return Number(bytes.toString("utf8", 0, readSync(this.#peak, bytes, 0, bytes.length, 0)));
  }

  /** The peak is that of the time after this; a version 2 that is older than Linux 6.12 keeps the one of the cgroup's life. */
  forgetPeak(): void {
    const file = join(this.#folder, this.#version.peak);
    try {
      if (this.#version === V2) {
        this.#peak ??= openSync(file, "r+");
        writeSync(this.#peak, "reset");
      } else writeFileSync(file, "0");
    } catch {
      // as said above
    }
  }

  /** The limit would be of what is in memory only. */
  #withoutSwap(): void {
    try {
      writeFileSync(join(this.#folder, "memory.swap.max"), "0");
    } catch {
      // this kernel has no swap
    }
  }

  #number(file: string, pattern: RegExp): number {
    const [, found] = pattern.exec(readFileSync(join(this.#folder, file), "utf8")) ?? [];
    if (found === undefined) throw new Error(`Cannot read ${join(this.#folder, file)}: it has no ${pattern.source}`);
    return Number(found);
  }

  /** Once its process has ended. */
  close(): void {
    if (this.#peak !== undefined) closeSync(this.#peak);
    this.#peak = undefined;
    rmdirSync(this.#folder);
  }
}
