// A forwarder in a process of its own, with the memory that it really gets, and two pods that must be served whatever others do.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { openSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { Client } from "../../../sandbox/nsm/client.ts";
import { KillableForwarder } from "../../../sandbox/process/killable.ts";
import { SANDBOX_RESOURCE, Sandbox, type SandboxPod } from "../../../sandbox/sandbox.ts";
import { systemClock as clock } from "../../../src/async/index.ts";
import { Fd } from "../../../src/kernel/index.ts";
import { silentLog } from "../../../src/telemetry/index.ts";
import { bundleProgram } from "../../../tools/bundle-program.ts";

const VFS_PER_PF = 4;
const PFS = 2;

export class AttackScene {
  readonly sandbox: Sandbox;
  readonly forwarder: KillableForwarder;
  /** Served by the manager, over connections that are there already. */
  readonly warm: SandboxPod;
  /** Served over a new connection to the forwarder for each call. */
  readonly fresh: SandboxPod;

  private constructor(parts: Pick<AttackScene, "sandbox" | "forwarder" | "warm" | "fresh">) {
    this.sandbox = parts.sandbox;
    this.forwarder = parts.forwarder;
    this.warm = parts.warm;
    this.fresh = parts.fresh;
  }

  static async open(): Promise<AttackScene> {
    const program = await bundleProgram(
      join(import.meta.dirname, "..", "..", ".."),
      "sandbox/process/forwarder-process.ts",
    );
    const machine = { realLinks: true, pfs: PFS, vfsPerPf: VFS_PER_PF };
    const sandbox = await Sandbox.start({ machine, log: silentLog, clock });
    const logFile = `${sandbox.folder}/forwarder.log`;
    const forwarder = new KillableForwarder(sandbox, { program, logFile });
    await forwarder.started;
    const isOffered = (devices: readonly { healthy: boolean }[]) =>
      devices.filter(({ healthy }) => healthy).length === PFS * VFS_PER_PF;
    await sandbox.kubelet.until(SANDBOX_RESOURCE, isOffered);
    const [warm, fresh] = [await sandbox.startPod("warm"), await sandbox.startPod("fresh")];
    return new AttackScene({ sandbox, forwarder, warm, fresh });
  }

  /** Its socket. */
  get path(): string {
    return `${this.sandbox.folder}/state/forwarder.sock`;
  }

  /** What it has logged. */
  get log(): string {
    return readFileSync(`${this.sandbox.folder}/forwarder.log`, "utf8");
  }

  /** Its process lives, and both pods get their interfaces and give them back. */
  async serves(): Promise<void> {
    assert.equal(this.forwarder.end, undefined, this.log.slice(-2000));
    await this.#serves(this.warm, this.warm.client);
    const client = this.sandbox.directClientOf(this.fresh, `unix://${this.path}`);
    try {
      await this.#serves(this.fresh, client);
    } finally {
      await client.hangUp();
    }
    assert.equal(this.forwarder.end, undefined, this.log.slice(-2000));
  }

  async #serves({ pod }: SandboxPod, client: Client): Promise<void> {
    await client.request();
    assert.equal((await pod.link("nsm-1"))?.up, true);
    await client.close();
  }

  async stop(): Promise<void> {
    await this.forwarder.kill();
    await this.sandbox.stop();
  }
}

/** A folder of /proc whose process has died: a real descriptor at which not even fstat(2) can look. */
export async function deadDescriptor(): Promise<Fd> {
  const child = spawn("sleep", ["60"], { stdio: "ignore" });
  const ended = once(child, "exit");
  await once(child, "spawn");
  const fd = Fd.own(openSync(`/proc/${child.pid}/fd`, "r"));
  child.kill("SIGKILL");
  await ended;
  return fd;
}
