// Pods as cgroups of this machine, in a folder of their own that goes with its test, and processes in them that open device nodes.
import { type ChildProcessByStdio, spawn } from "node:child_process";
import { once } from "node:events";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmdirSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import type { Readable, Writable } from "node:stream";
import type { TestContext } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { BlockingWrites, CgroupFolder, type DeviceNumber, makeCharDevice } from "../../src/kernel/index.ts";

/** Ordinary devices that stand for VFIO groups. */
export const zero: DeviceNumber = { major: 1, minor: 5 };
export const full: DeviceNumber = { major: 1, minor: 7 };
export const random: DeviceNumber = { major: 1, minor: 8 };

/** What an opener says when the cgroup forbids it. */
export const REFUSED = /Operation not permitted/;

/** A process within a cgroup. */
export interface Opener {
  /** Opens a device for reading and writing: "ok", or the error's words. */
  open(device: DeviceNumber): Promise<string>;
}

/** Reads paths, opens each for reading and writing, prints what came of it. */
const LOOP = 'while read -r path; do out=$( { exec 3<>"$path"; } 2>&1 ) && echo ok || echo "failed: $out"; done';

let places = 0;

/** A folder of one hierarchy in which a test makes what it likes. */
export class CgroupPlace {
  readonly version: 1 | 2;
  /** For NSM_CGROUP_PATH. */
  readonly path: string;
  readonly #nodes = mkdtempSync(join(tmpdir(), "nodes-"));
  readonly #folders: CgroupFolder[] = [];
  readonly #children: ChildProcessByStdio<Writable, Readable, null>[] = [];

  constructor(t: TestContext, version: 1 | 2) {
    places += 1;
    this.version = version;
    const mount = mountOf(version);
    removeLeft(mount);
    this.path = join(mount, `forwarder-test-${process.pid}-${places}`);
    mkdirSync(this.path);
    t.after(() => this.#close());
  }

  /** Makes a cgroup and those above it; answers its path on this machine. */
  make(name: string): string {
    const path = join(this.path, name);
    mkdirSync(path, { recursive: true });
    return path;
  }

  /** Makes a cgroup that lets nothing but /dev/null be opened, as a runtime does on version 1. */
  makeClosed(name: string): string {
    const path = this.make(name);
    writeFileSync(join(path, "devices.deny"), "a");
    writeFileSync(join(path, "devices.allow"), "c 1:3 rwm");
    return path;
  }

  remove(name: string): void {
    rmdirSync(join(this.path, name));
  }

  read(name: string, file: string): string {
    return readFileSync(join(this.path, name, file), "utf8");
  }

  write(name: string, file: string, text: string): void {
    writeFileSync(join(this.path, name, file), text);
  }

  /** The cgroup for calls that take a descriptor. */
  folder(name: string): CgroupFolder {
    const folder = CgroupFolder.open(join(this.path, name), new BlockingWrites());
    this.#folders.push(folder);
    return folder;
  }

  /** Starts a process that waits in the cgroup. */
  start(name: string): Opener {
    const shell = spawn("sh", ["-c", LOOP], { stdio: ["pipe", "pipe", "inherit"] });
    this.#children.push(shell);
    this.write(name, "cgroup.procs", String(shell.pid));
    const answers = createInterface({ input: shell.stdout })[Symbol.asyncIterator]();
    return {
      open: async (device) => {
        shell.stdin.write(`${this.#nodeOf(device)}\n`);
        return String((await answers.next()).value);
      },
    };
  }

  #nodeOf(device: DeviceNumber): string {
    const path = join(this.#nodes, `${device.major}-${device.minor}`);
    if (!existsSync(path)) makeCharDevice(path, device, 0o666);
    return path;
  }

  async #close(): Promise<void> {
    for (const child of this.#children) {
      const ended = once(child, "close");
      child.kill("SIGKILL");
      await ended;
    }
    for (const folder of this.#folders) folder.close();
    rmSync(this.#nodes, { recursive: true });
    await removeTree(this.path);
  }
}

/** Where a hierarchy of that version is mounted. */
export function mountOf(version: 1 | 2): string {
  const rows = readFileSync("/proc/self/mounts", "utf8").split("\n");
  const mounts = rows
    .map((row) => row.split(" "))
    .filter(([, , type, options = ""]) => {
      return version === 2 ? type === "cgroup2" : type === "cgroup" && options.split(",").includes("devices");
    });
  const [, path] = mounts[0] ?? [];
  if (path === undefined) throw new Error(`No hierarchy of version ${version} is mounted here`);
  return path;
}

/** Places of test processes that were killed. They are removed here only. */
function removeLeft(mount: string): void {
  for (const name of readdirSync(mount)) {
    const [, pid] = /^forwarder-test-(\d+)-\d+$/.exec(name) ?? [];
    if (pid === undefined || existsSync(`/proc/${pid}`)) continue;
    void removeTree(join(mount, name)).catch(() => {}); // another test process does the same just now
  }
}

/** A process leaves its cgroup a moment after its end was reported. */
async function removeTree(path: string): Promise<void> {
  for (const entry of readdirSync(path, { withFileTypes: true })) {
    if (entry.isDirectory()) await removeTree(join(path, entry.name));
  }
  for (let tries = 0; ; tries++) {
    try {
      return rmdirSync(path);
    } catch (error) {
      if (tries === 200) throw error;
      await sleep(10);
    }
  }
}
