import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { Client } from "../../sandbox/client.ts";
import { pictureOf } from "../../sandbox/demo/node-picture.ts";
import { KillableForwarder } from "../../sandbox/killable.ts";
import { ping } from "../../sandbox/ping.ts";
import { SANDBOX_RESOURCE, SANDBOX_SERVICE, Sandbox, type SandboxPod } from "../../sandbox/sandbox.ts";
import { systemClock as clock } from "../../src/async/index.ts";
import { silentLog } from "../../src/telemetry/index.ts";
import { type Bundle, bundleProgram } from "../../tools/bundle-program.ts";
import { ipDump } from "./ip.ts";
import { eventually } from "./story.ts";

const VFS = 4;
const ROOT = join(import.meta.dirname, "..", "..");

/** A client of a pod that plays its manager, so that nobody but the pod keeps a descriptor of its namespace. */
export interface KillPod extends SandboxPod {
  readonly direct: Client;
}

/** A node whose forwarder runs in a process of its own and is killed, with a pod whose traffic must never stop. */
export class KillScene {
  readonly sandbox: Sandbox;
  forwarder: KillableForwarder;
  readonly #bundle: Bundle;
  #pods = 0;
  #bystander: SandboxPod | undefined;
  #pinging: Promise<{ sent: number; lost: number }> | undefined;
  #isOver = false;

  private constructor(sandbox: Sandbox, bundle: Bundle) {
    this.sandbox = sandbox;
    this.#bundle = bundle;
    this.forwarder = this.#spawn();
  }

  static async open(): Promise<KillScene> {
    const bundle = await bundleProgram(ROOT, "sandbox/forwarder-process.ts");
    try {
      const machine = { realLinks: true, vfsPerPf: 2 };
      const settings = { adminListenOn: undefined };
      const sandbox = await Sandbox.start({ machine, settings, log: silentLog, clock });
      const scene = new KillScene(sandbox, bundle);
      await scene.#begin();
      return scene;
    } catch (error) {
      bundle.remove();
      throw error;
    }
  }

  async #begin(): Promise<void> {
    await this.#isServing();
    this.#bystander = await this.sandbox.startPod("bystander");
    await this.#bystander.client.request();
    this.#pinging = this.#ping(this.#bystander);
  }

  /** A new pod with a token. */
  async pod(): Promise<KillPod> {
    this.#pods += 1;
    const name = `pod-${this.#pods}`;
    const pod = await this.sandbox.startPod(name);
    const { sandbox } = this;
    const direct = new Client({
      log: silentLog,
      clock,
      name,
      actor: sandbox.actor(`ns/default/pod/${name}`),
      target: `unix://${sandbox.folder}/state/forwarder.sock`,
      manager: { name: sandbox.nsmgr.name, actor: sandbox.actor("nsmgr") },
      networkService: SANDBOX_SERVICE,
      netns: pod.pod.netns,
      parameters: { name: "nsm-1", tokenID: pod.tokenId },
    });
    return { ...pod, direct };
  }

  /** Starts the next forwarder after one that was killed. */
  async next(): Promise<void> {
    this.forwarder = this.#spawn();
    await this.#isServing();
  }

  /**
   * Runs the work until the forwarder is killed at that step, and starts the next one; says where that was. Undefined when the
   * work came to its end first.
   */
  async killAt(step: number, work: (signal: AbortSignal) => Promise<unknown>): Promise<string | undefined> {
    const { forwarder } = this;
    forwarder.arm(step);
    const gone = new AbortController();
    const working = work(gone.signal);
    const where = await Promise.race([
      forwarder.killed,
      working.then(
        () => undefined,
        (error: unknown) => (forwarder.isHit ? forwarder.killed : Promise.reject(error)), // the client hears of it first
      ),
    ]);
    forwarder.arm(Number.POSITIVE_INFINITY);
    if (where === undefined) return undefined;
    gone.abort(new Error("the forwarder is dead"));
    await working.catch(() => {});
    await this.next();
    return where;
  }

  /** All that stands on the node, and what the book of the forwarder says. */
  async dump(): Promise<unknown> {
    const { machine } = this.sandbox;
    const picture = await pictureOf(machine);
    const settings = await Promise.all(
      picture.flatMap(({ address, vfs }) => vfs.map((vf) => machine.pfPort({ address }).read(vf.index))),
    );
    const { vfs, connections } = await this.forwarder.book();
    const book = vfs.map(({ tokenId: _, ...vf }) => vf);
    return { picture, settings, host: await ipDump(machine.netns), book, connections };
  }

  /** Somebody takes the function of the pod's token from its driver: the next Request binds it. */
  async unbind({ tokenId }: KillPod): Promise<void> {
    const { drivers, devices } = this.sandbox.machine;
    const vf = (await this.forwarder.book()).vfs.find((one) => one.tokenId === tokenId);
    assert.ok(vf);
    await drivers.writeText("igbvf/unbind", vf.address);
    await devices.writeText(`${vf.address}/driver_override`, "vfio-pci");
  }

  /**
   * Kills it at each step in turn, before and after; the round behind the last one tells what follows without. Answers how
   * many kills there were.
   */
  async eachStep(
    tell: (pod: KillPod, kill: (work: (signal: AbortSignal) => Promise<unknown>) => Promise<boolean>) => Promise<void>,
    ended?: "ended",
  ): Promise<number> {
    const text = (dump: unknown) => JSON.stringify(dump, (key, value) => (anew(key, ended) ? "anew" : value), 1);
    const before = text(await this.dump());
    for (let step = 0; ; step++) {
      const pod = await this.pod();
      let where: string | undefined;
      try {
        await tell(pod, async (work) => {
          where = await this.killAt(step, work);
          return where !== undefined;
        });
        assert.deepEqual(await pod.pod.links(), []);
        this.sandbox.kubelet.free(pod.name);
        await pod.direct.hangUp();
        let seen = "";
        const isSame = async () => {
          seen = text(await this.dump());
          return seen === before;
        };
        await eventually(isSame, (same) => same, 4000).catch(() => assert.equal(seen, before));
      } catch (cause) {
        const log = readFileSync(`${this.sandbox.folder}/forwarder.log`, "utf8").split("\n").slice(-25).join("\n");
        throw new Error(`killed ${where ?? "not at all"}, step ${step}: ${String(cause)}\n${log}`, { cause });
      }
      if (where === undefined) return step;
    }
  }

  async stop(): Promise<{ sent: number; lost: number } | undefined> {
    this.#isOver = true;
    const pings = await this.#pinging;
    try {
      await this.#bystander?.client.close();
      await this.forwarder.kill();
    } finally {
      await this.sandbox.stop();
      this.#bundle.remove();
    }
    return pings;
  }

  #spawn(): KillableForwarder {
    const logFile = `${this.sandbox.folder}/forwarder.log`;
    return new KillableForwarder(this.sandbox, { program: this.#bundle.path, logFile });
  }

  async #isServing(): Promise<void> {
    await this.forwarder.started;
    await this.sandbox.kubelet.until(SANDBOX_RESOURCE, (devices) => devices.length === VFS);
  }

  async #ping({ client, pod }: SandboxPod): Promise<{ sent: number; lost: number }> {
    const to = client.connection?.context?.ipContext?.dstIpAddrs[0]?.split("/")[0] ?? "";
    const count = { sent: 0, lost: 0 };
    while (!this.#isOver) {
      count.sent += 1;
      if ((await ping({ netns: pod.netns, to, timeoutMs: 2000, clock })) === undefined) count.lost += 1;
      await clock.sleep(20);
    }
    return count;
  }
}

/** What the kernel made anew may differ where a network device has ended with its driver. */
function anew(key: string, ended: "ended" | undefined): boolean {
  return ended !== undefined && ["wireEnd", "host"].includes(key);
}
