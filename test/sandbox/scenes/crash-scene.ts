import assert from "node:assert/strict";
import { existsSync, readdirSync, readlinkSync } from "node:fs";
import { inspect } from "node:util";
import type { KubeletDevice } from "../../../sandbox/kubelet/kubelet.ts";
import type { Client } from "../../../sandbox/nsm/client.ts";
import { SANDBOX_RESOURCE, type SandboxOptions, type SandboxPod } from "../../../sandbox/sandbox.ts";
import { Fd } from "../../../src/kernel/index.ts";
import { BystanderPings } from "./bystander-pings.ts";
import { Crashes } from "./crashes.ts";
import { SharedUntilFailure } from "./fresh-after-failure.ts";
import { eventually, openFiles, Scene } from "./story.ts";

const VFS = 4;

/** A node whose forwarder can crash, with a pod whose traffic must never stop. */
export class CrashScene {
  readonly crashes = new Crashes();
  readonly scene: Scene;
  readonly #bystander: SandboxPod;
  readonly #pings: BystanderPings;
  readonly #before = namespaceDescriptors();

  private constructor(scene: Scene, crashes: Crashes, bystander: SandboxPod) {
    this.scene = scene;
    this.crashes = crashes;
    this.#bystander = bystander;
    this.#pings = new BystanderPings(bystander);
  }

  static async open(options: Omit<SandboxOptions, "log" | "clock"> = {}): Promise<CrashScene> {
    const crashes = new Crashes();
    const scene = await Scene.open({ ...options, host: crashes.between, settings: { adminListenOn: undefined } });
    const bystander = await scene.pod();
    await bystander.client.request();
    return new CrashScene(scene, crashes, bystander);
  }

  /** One for the tests of a file, none of whose pings may be lost. */
  static shared(options: Omit<SandboxOptions, "log" | "clock"> = {}): SharedUntilFailure<CrashScene> {
    return new SharedUntilFailure(
      () => CrashScene.open(options),
      async (crash) => {
        const pings = await crash.stop();
        assert.deepEqual(pings, { ...pings, lost: 0 });
      },
    );
  }

  /** Kills the forwarder where it is and starts the next one. */
  async restart(meanwhile: () => Promise<void> = async () => {}): Promise<void> {
    const { sandbox, log } = this.scene;
    this.crashes.end();
    const logged = log.events.length;
    const stopped = sandbox.stopForwarder();
    // What a stopping forwarder still waits for has no caller any more: the dead do not answer.
    await eventually(
      () => log.events.slice(logged).some(({ event }) => event === "unregistered" || event === "not-unregistered"),
      (isGone) => isGone,
    );
    await eventually(
      () => existsSync(`${sandbox.folder}/state/forwarder.sock`),
      (isThere) => !isThere,
    );
    void stopped;
    await meanwhile();
    this.scene.forwarder = await sandbox.startForwarder();
    // All unhealthy: the list of the dead one, whose stream has ended.
    const isNew = (devices: readonly KubeletDevice[]) =>
      devices.length >= VFS && devices.some(({ healthy }) => healthy);
    await sandbox.kubelet.until(SANDBOX_RESOURCE, isNew);
  }

  /** As it does in time by itself; for those who look at all VFs. */
  async refreshBystander(): Promise<void> {
    await this.#bystander.client.request({ timeoutMs: 60_000 });
  }

  /** The pod ends; its namespace does as soon as no process has a descriptor of it any more. */
  async endPod({ name, pod }: SandboxPod, client: Client): Promise<void> {
    await client.hangUp();
    pod.close();
    this.scene.sandbox.kubelet.free(name);
    await eventually(
      () => openFiles("net").filter((file) => file === `net:[${pod.netns.id.ino}]`),
      (left) => left.length === 0,
    );
  }

  /** Runs the checks of one crash; a failure says where it was, and what the forwarder reported last. */
  async checks(what: () => string, check: () => Promise<void>): Promise<void> {
    try {
      await check();
    } catch (cause) {
      const events = this.scene.log.events.filter(({ level }) => level !== "debug").slice(-25);
      const lines = events.map(({ event, fields }) => `${event} ${inspect(fields, { breakLength: Infinity })}`);
      throw new Error(`${what()}: ${String(cause)}\n${lines.join("\n")}`, { cause });
    }
  }

  /**
   * All VFs but the bystander's are restored, and the bystander has its own. What the kernel made again may differ where a
   * network device has `ended`, with its driver or, as the machine's are veths, with a namespace.
   */
  async isAsBefore(before: unknown, ended?: "ended"): Promise<void> {
    const anew = ended ? ["wireEnd", "namespaces"] : [];
    const text = (dump: unknown) => JSON.stringify(dump, (key, value) => (anew.includes(key) ? "again" : value), 1);
    const desired = text(before);
    let seen = "";
    const isSame = async () => {
      seen = text(await this.scene.dump());
      return seen === desired;
    };
    await eventually(isSame, (same) => same).catch(() => assert.equal(seen, desired));
  }

  async stop(): Promise<{ sent: number; lost: number }> {
    const pings = await this.#pings.stop();
    try {
      await this.#bystander.client.close();
    } finally {
      await this.scene.stop();
      closeNamespacesOfTheDead(this.#before);
    }
    return pings;
  }
}

/** What the kernel does when a process dies; those that died here share one that lives on. */
function closeNamespacesOfTheDead(before: ReadonlySet<number>): void {
  for (const number of namespaceDescriptors()) if (!before.has(number)) Fd.own(number).close();
}

function namespaceDescriptors(): ReadonlySet<number> {
  const isNamespace = (fd: string) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`).startsWith("net:");
    } catch {
      return false; // the descriptor of the listing itself
    }
  };
  return new Set(readdirSync("/proc/self/fd").filter(isNamespace).map(Number));
}
