import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { type CallChanges, Client, type ClientOptions } from "../../sandbox/client.ts";
import { pictureOf } from "../../sandbox/demo/node-picture.ts";
import { KillableForwarder } from "../../sandbox/killable.ts";
import { ping } from "../../sandbox/ping.ts";
import {
  SANDBOX_RESOURCE,
  SANDBOX_SERVICE,
  Sandbox,
  type SandboxOptions,
  type SandboxPod,
} from "../../sandbox/sandbox.ts";
import { systemClock as clock } from "../../src/async/index.ts";
import { silentLog } from "../../src/telemetry/index.ts";
import { type Bundle, bundleProgram } from "../../tools/bundle-program.ts";
import { ipDump } from "./ip.ts";
import { eventually } from "./story.ts";

const PFS = 2;
const ROOT = join(import.meta.dirname, "..", "..");

/** What a call is told, so that the forwarder can die in it. */
type Dying = Pick<CallChanges, "signal" | "traceparent">;

/** Does the work until the forwarder is killed, and waits for the next one. True when the work had not come to its end by then. */
export type Kill = (work: (call: Dying) => Promise<unknown>) => Promise<boolean>;

/** What one pod goes through, with one `kill` in it; it leaves the node as it found it. */
export type Tell = (pod: SandboxPod, kill: Kill, at: number) => Promise<void>;

/**
 * A node whose forwarder runs in a process of its own and is killed, with a pod whose traffic must never stop. The process dies
 * once for many pods, each of which stands at another step of its call: what it finds afterwards is all of that.
 */
export class KillScene {
  readonly sandbox: Sandbox;
  readonly pods: SandboxPod[] = [];
  readonly #vfs: number;
  forwarder: KillableForwarder;
  readonly #bundle: Bundle;
  /** Its traffic must never stop. */
  bystander: SandboxPod | undefined;
  #pinging: Promise<{ sent: number; lost: number }> | undefined;
  #isOver = false;
  #clients: Client[] = [];

  private constructor(sandbox: Sandbox, bundle: Bundle, vfs: number) {
    this.sandbox = sandbox;
    this.#bundle = bundle;
    this.#vfs = vfs;
    this.forwarder = this.#spawn();
  }

  /** All functions but the bystander's have a pod. */
  static async open({
    vfsPerPf,
    ...options
  }: { readonly vfsPerPf: number } & Pick<SandboxOptions, "cgroups" | "machine">): Promise<KillScene> {
    const bundle = await bundleProgram(ROOT, "sandbox/forwarder-process.ts");
    try {
      const machine = { ...options.machine, realLinks: true, pfs: PFS, vfsPerPf };
      const settings = { adminListenOn: undefined };
      const sandbox = await Sandbox.start({ ...options, machine, settings, log: silentLog, clock });
      const scene = new KillScene(sandbox, bundle, PFS * vfsPerPf);
      await scene.#begin();
      return scene;
    } catch (error) {
      bundle.remove();
      throw error;
    }
  }

  async #begin(): Promise<void> {
    await this.#isServing();
    this.bystander = await this.sandbox.startPod("bystander");
    await this.bystander.client.request();
    this.#pinging = this.#ping(this.bystander);
    while (this.pods.length < this.#vfs - 1) this.pods.push(await this.sandbox.startPod(`pod-${this.pods.length}`));
  }

  /** A new client of the pod that plays its manager, so that nobody but the pod keeps a descriptor of its namespace. */
  direct({ name, pod, tokenId }: SandboxPod, changes: Partial<ClientOptions> = {}): Client {
    const { sandbox } = this;
    const client = new Client({
      log: silentLog,
      clock,
      name,
      actor: sandbox.actor(`ns/default/pod/${name}`),
      target: `unix://${sandbox.folder}/state/forwarder.sock`,
      manager: { name: sandbox.nsmgr.name, actor: sandbox.actor("nsmgr") },
      networkService: SANDBOX_SERVICE,
      netns: pod.netns,
      parameters: { name: "nsm-1", tokenID: tokenId },
      ...changes,
    });
    this.#clients.push(client);
    return client;
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

  /** Somebody gives the function of the pod's token to that driver, or to none: what then binds it is a step of a Request. */
  async giveTo({ tokenId }: SandboxPod, driver: "igbvf" | undefined): Promise<void> {
    const { drivers, devices } = this.sandbox.machine;
    const { address = "" } = (await this.forwarder.book()).vfs.find((one) => one.tokenId === tokenId) ?? {};
    const before = (await devices.exists(`${address}/driver`))
      ? await devices.readLink(`${address}/driver`)
      : undefined;
    const name = before?.split("/").at(-1);
    if (name === driver) return;
    await devices.writeText(`${address}/driver_override`, driver === undefined ? "vfio-pci" : "\n");
    if (name !== undefined) await drivers.writeText(`${name}/unbind`, address);
    if (driver !== undefined) await drivers.writeText(`${driver}/bind`, address);
  }

  /**
   * Lets the forwarder die at each step of what is told, before and after it, as often as it takes: each death finds every pod
   * but one at another step, and that one served. Answers how many steps there are.
   */
  async eachStep(tell: Tell, ended?: "ended"): Promise<number> {
    const text = (dump: unknown) => JSON.stringify(dump, (key, value) => (anew(key, ended) ? "anew" : value), 1);
    const before = text(await this.dump());
    const round = async (points: readonly number[]) => {
      try {
        const steps = await this.#round(points, tell);
        let seen = "";
        const isSame = async () => {
          seen = text(await this.dump());
          return seen === before;
        };
        await eventually(isSame, (same) => same, 4000).catch(() => assert.equal(seen, before));
        return steps;
      } catch (cause) {
        const log = readFileSync(`${this.sandbox.folder}/forwarder.log`, "utf8").split("\n").slice(-40).join("\n");
        throw new Error(`killed at the steps ${points.join()}: ${String(cause)}\n${log}`, { cause });
      }
    };
    const steps = await round([Number.POSITIVE_INFINITY]);
    const points = Array.from({ length: steps }, (_, step) => step);
    while (points.length > 0) await round([...points.splice(0, this.pods.length - 1), Number.POSITIVE_INFINITY]);
    return steps;
  }

  async #round(points: readonly number[], tell: Tell): Promise<number> {
    const { forwarder } = this;
    const counts: number[] = [];
    const death = new Death(points.length, async () => {
      await forwarder.kill();
      this.forwarder = this.#spawn();
      await this.#isServing();
    });
    const telling = points.map(async (at, i) => {
      const pod = this.pods[i] ?? assert.fail("more steps than pods");
      let where: string | undefined = "before anything";
      const kill: Kill = async (work) => {
        const [call, gone] = [traceParent(), new AbortController()];
        const halted = forwarder.halt(call, at);
        const working = work({ signal: gone.signal, traceparent: call });
        where = await Promise.race([halted, working.then(() => undefined)]);
        counts.push(forwarder.stepsOf(call));
        await death.comes();
        gone.abort(new Error("the forwarder is dead"));
        await working.catch(() => {});
        return where !== undefined;
      };
      try {
        await tell(pod, kill, at);
        assert.deepEqual(await pod.pod.links(), []);
      } catch (cause) {
        death.fail(cause);
        throw new Error(`${pod.name}, killed ${where ?? "when it was served"}: ${String(cause)}`, { cause });
      }
    });
    try {
      await Promise.all(telling);
    } finally {
      await Promise.allSettled(telling);
      for (const client of this.#clients.splice(0)) await client.hangUp();
    }
    return Math.max(...counts);
  }

  /** Kills the forwarder where it is and starts the next one. */
  async restart(meanwhile: () => void): Promise<void> {
    await this.forwarder.kill();
    meanwhile();
    this.forwarder = this.#spawn();
    await this.#isServing();
  }

  async stop(): Promise<{ sent: number; lost: number } | undefined> {
    this.#isOver = true;
    const pings = await this.#pinging;
    await this.bystander?.client.close();
    await this.forwarder.kill();
    await this.sandbox.stop();
    this.#bundle.remove();
    return pings;
  }

  #spawn(): KillableForwarder {
    const logFile = `${this.sandbox.folder}/forwarder.log`;
    return new KillableForwarder(this.sandbox, { program: this.#bundle.path, logFile });
  }

  /** All unhealthy: the list of the dead one, whose stream has ended. */
  async #isServing(): Promise<void> {
    await this.forwarder.started;
    await this.sandbox.kubelet.until(
      SANDBOX_RESOURCE,
      (devices) => devices.length === this.#vfs && devices.some(({ healthy }) => healthy),
    );
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

/** The one death of a round: it comes when every call is where it shall be. */
class Death {
  readonly #die: () => Promise<void>;
  readonly #over = Promise.withResolvers<void>();
  #missing: number;

  constructor(calls: number, die: () => Promise<void>) {
    this.#missing = calls;
    this.#die = die;
    this.#over.promise.catch(() => {}); // whoever waits for it hears of it
  }

  /** The call is where it shall be. Resolves when the next forwarder serves. */
  async comes(): Promise<void> {
    this.#missing -= 1;
    if (this.#missing === 0) this.#die().then(this.#over.resolve, this.#over.reject);
    await this.#over.promise;
  }

  fail(cause: unknown): void {
    this.#over.reject(cause);
  }
}

/** W3C's, by which the forwarder's process names the call. */
function traceParent(): string {
  return `00-${randomBytes(16).toString("hex")}-${randomBytes(8).toString("hex")}-01`;
}

/** What the kernel made anew may differ where a network device has ended with its driver. */
function anew(key: string, ended: "ended" | undefined): boolean {
  return ended !== undefined && ["wireEnd", "host"].includes(key);
}
