import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { writeFileSync } from "node:fs";
import { createInterface, type Interface } from "node:readline";
import { fileURLToPath } from "node:url";
import type { Connection } from "../../src/gen/connection_pb.ts";
import type { DeviceNumber } from "../../src/kernel/index.ts";

/** What the process in the container can be made to do. */
export type ContainerCommand =
  | { readonly kind: "cgroup-dir" }
  | { readonly kind: "make-node"; readonly folder: string; readonly name: string; readonly device: DeviceNumber }
  | { readonly kind: "open" | "close"; readonly path: string };

/** The errno's name in `error`, for example "EPERM". */
export interface ContainerAnswer {
  readonly value?: string;
  readonly error?: string;
}

export interface ContainerOptions {
  /** The cgroup that it lives in. */
  readonly cgroup: string;
  /** The root of its cgroup namespace: beneath it the tree looks to it as a host's. */
  readonly cgroupRoot: string;
  /** Where it has its device nodes, as /dev/vfio of a pod. */
  readonly folder: string;
}

const PROCESS = fileURLToPath(new URL("./container-process.ts", import.meta.url));
/** Enters the cgroup namespace's root before it makes the namespace. */
const ENTER = 'echo $$ > "$0/cgroup.procs" && exec unshare --cgroup "$@"';

/** A process in a cgroup of its own that makes device nodes and opens them, as the containers of a VFIO pod do. Needs root. */
export class Container {
  #folder: string;
  #folders = 0;
  readonly #child: ChildProcess;
  readonly #lines: Interface;

  private constructor(folder: string, child: ChildProcess, lines: Interface) {
    this.#folder = folder;
    this.#child = child;
    this.#lines = lines;
  }

  static async start({ cgroup, cgroupRoot, folder }: ContainerOptions): Promise<Container> {
    const child = spawn("sh", ["-c", ENTER, cgroupRoot, process.execPath, PROCESS], {
      stdio: ["pipe", "pipe", "inherit"],
    });
    if (!child.stdout || child.pid === undefined) throw new Error("Cannot start the process of a container");
    const container = new Container(folder, child, createInterface({ input: child.stdout }));
    await container.#do({ kind: "cgroup-dir" }); // it runs, and is in the namespace
    writeFileSync(`${cgroup}/cgroup.procs`, String(child.pid));
    return container;
  }

  /** Where its device nodes are. */
  get folder(): string {
    return this.#folder;
  }

  /** Has no node any more, as one that was started again: numbers of earlier ones may be other groups' by now. */
  forgetNodes(): void {
    this.#folders += 1;
    this.#folder = this.#folder.replace(/(\.\d+)?$/, `.${this.#folders}`);
  }

  get pid(): number {
    return this.#child.pid ?? 0;
  }

  /** Where it finds itself, as the NSM client sends it; "" where it cannot tell. */
  async cgroupDir(): Promise<string> {
    return (await this.#do({ kind: "cgroup-dir" })).value ?? "";
  }

  /** Makes the nodes that an answer names, and leaves those alone that are there. */
  async makeNodes(connection: Connection): Promise<void> {
    const { iommuGroup, vfioMajor, vfioMinor, deviceMajor, deviceMinor } = connection.mechanism?.parameters ?? {};
    const { folder } = this;
    const nodes = [
      ["vfio", vfioMajor, vfioMinor],
      [iommuGroup ?? "", deviceMajor, deviceMinor],
    ] as const;
    for (const [name, major, minor] of nodes) {
      const device = { major: Number(major), minor: Number(minor) };
      const { error } = await this.#do({ kind: "make-node", folder, name, device });
      if (error !== undefined) throw new Error(`Cannot make ${folder}/${name}: ${error}`);
    }
  }

  /** Opens a node for reading and writing and keeps it open. Answers "" or the errno's name. */
  async open(name: string): Promise<string> {
    return (await this.#do({ kind: "open", path: `${this.folder}/${name}` })).error ?? "";
  }

  async close(name: string): Promise<void> {
    await this.#do({ kind: "close", path: `${this.folder}/${name}` });
  }

  /** Whether it can open a node now: "" or the errno's name. */
  async tries(name: string): Promise<string> {
    const result = await this.open(name);
    if (result === "") await this.close(name);
    return result;
  }

  /** The process dies. */
  async kill(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const gone = once(this.#child, "exit");
    this.#child.kill("SIGKILL");
    await gone;
    this.#lines.close();
  }

  async #do(command: ContainerCommand): Promise<ContainerAnswer> {
    const answer = once(this.#lines, "line");
    this.#child.stdin?.write(`${JSON.stringify(command)}\n`);
    const [line] = await answer;
    return JSON.parse(line as string);
  }
}
