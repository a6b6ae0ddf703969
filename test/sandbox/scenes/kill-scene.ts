import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { pictureOf } from "../../../sandbox/demo/node-picture.ts";
import { FATES, type Fate, type UnsyncedDisk } from "../../../sandbox/machine/unsynced-disk.ts";
import type { CallChanges, Client, ClientOptions } from "../../../sandbox/nsm/client.ts";
import { type CrashPoint, KillableForwarder } from "../../../sandbox/process/killable.ts";
import { SANDBOX_RESOURCE, Sandbox, type SandboxOptions, type SandboxPod } from "../../../sandbox/sandbox.ts";
import { systemClock as clock } from "../../../src/async/index.ts";
import { silentLog } from "../../../src/telemetry/index.ts";
import { bundleProgram } from "../../../tools/bundle-program.ts";
import { BystanderPings } from "./bystander-pings.ts";
import { Death } from "./death.ts";
import { SharedUntilFailure } from "./fresh-after-failure.ts";
import { ipDump, withoutIndexes } from "./ip.ts";
import { eventually } from "./story.ts";

/** A call is sent so often to a point that it passes most times. */
const TRIES = 3;
const PFS = 2;
const HELD_BACK_MS = 15_000;
const ROOT = join(import.meta.dirname, "..", "..", "..");

/** What a call is given, so that the forwarder can die in it. */
type Dying = Pick<CallChanges, "signal" | "traceparent">;

/** Does the work until the forwarder is killed, and waits for the next one. True when the work had not come to its end by then. */
export type Kill = (work: (call: Dying) => Promise<unknown>) => Promise<boolean>;

/**
 * What one pod goes through, with one `kill` in it; it leaves the node as it found it. What it resolves with is awaited when the stories
 * of all pods are over, and Closes that were held back too.
 */
export type PodStory = (pod: SandboxPod, kill: Kill, at: number) => Promise<(() => Promise<void>) | undefined>;

export interface PointOptions {
  /** The steps that the call takes, each with how often: a story that reaches others, or fewer, fails. */
  readonly reaches: Readonly<Record<string, number>>;
  /** Dies only at points of this name; at all of them by default. */
  readonly at?: RegExp | undefined;
  readonly ended?: "ended";
  /** What the call has begun and its answer does not wait for is part of it. */
  readonly isFollowed?: true;
}

export interface KillSceneOptions extends Pick<SandboxOptions, "cgroups" | "machine"> {
  readonly vfsPerPf: number;
  readonly disk?: UnsyncedDisk | undefined;
  /** Each death is an upgrade by force: the next forwarder is a pod of another name, which may not have the earlier one's. */
  readonly isUpgraded?: boolean;
}

/** For one pod: where the forwarder dies in its call. */
interface Work {
  readonly at: number;
  readonly point: CrashPoint | undefined;
}

/**
 * A node whose forwarder runs in a process of its own and is killed, with a pod whose traffic must never stop. The process dies
 * once for many pods, each of which stands at another step of its call: what it finds afterwards is all of that.
 */
export class KillScene {
  readonly sandbox: Sandbox;
  readonly pods: SandboxPod[] = [];
  readonly #vfs: number;
  forwarder: KillableForwarder;
  readonly #program: string;
  /** Its traffic must never stop. */
  bystander: SandboxPod | undefined;
  #pings: BystanderPings | undefined;
  #clients: Client[] = [];
  #deaths = 0;
  readonly #isUpgradedEachTime: boolean;

  /** In place of files; what was not synced is lost with each forwarder. */
  #disk: UnsyncedDisk | undefined;

  private constructor(
    sandbox: Sandbox,
    program: string,
    {
      vfs,
      disk,
      isUpgraded,
    }: { readonly vfs: number; readonly disk: UnsyncedDisk | undefined; readonly isUpgraded: boolean },
  ) {
    this.sandbox = sandbox;
    this.#isUpgradedEachTime = isUpgraded;
    this.#disk = disk;
    this.#program = program;
    this.#vfs = vfs;
    this.forwarder = this.#spawn();
  }

  /** One for the tests of a file, none of whose pings may be lost; each has a disk of its own. */
  static shared(open: () => Promise<KillScene>): SharedUntilFailure<KillScene> {
    return new SharedUntilFailure(open, async (scene) => {
      const pings = await scene.stop();
      assert.deepEqual(pings, { ...pings, lost: 0 });
    });
  }

  /** All VFs but the bystander's have a pod. */
  static async open({ vfsPerPf, disk, isUpgraded = false, ...options }: KillSceneOptions): Promise<KillScene> {
    const program = await bundleProgram(ROOT, "sandbox/process/forwarder-process.ts");
    const machine = { ...options.machine, realLinks: true, pfs: PFS, vfsPerPf };
    const settings = { adminListenOn: undefined };
    const sandbox = await Sandbox.start({ ...options, machine, settings, log: silentLog, clock });
    const scene = new KillScene(sandbox, program, { vfs: PFS * vfsPerPf, disk, isUpgraded });
    await scene.#begin();
    return scene;
  }

  async #begin(): Promise<void> {
    await this.#isServing();
    this.bystander = await this.sandbox.startPod("bystander");
    await this.bystander.client.request();
    this.#pings = new BystanderPings(this.bystander);
    while (this.pods.length < this.#vfs - 1) this.pods.push(await this.sandbox.startPod(`pod-${this.pods.length}`));
  }

  /** A new client of the pod that plays its manager, so that only the pod keeps a descriptor of its namespace. */
  direct(pod: SandboxPod, changes: Partial<ClientOptions> = {}): Client {
    const { sandbox } = this;
    const client = sandbox.directClientOf(pod, `unix://${sandbox.folder}/state/forwarder.sock`, changes);
    this.#clients.push(client);
    return client;
  }

  /** All that is on the node, and what the inventory of the forwarder says. */
  async dump(): Promise<unknown> {
    const { machine } = this.sandbox;
    const picture = await pictureOf(machine);
    const settings = await Promise.all(
      picture.flatMap(({ address, vfs }) => vfs.map((vf) => machine.pfPort({ address }).read(vf.index))),
    );
    const { vfs, connections } = await this.forwarder.inventory();
    const inventory = vfs.map(({ tokenId: _, ...vf }) => vf);
    return withoutIndexes({ picture, settings, host: await ipDump(machine.netns), inventory, connections });
  }

  /** The VF is what it was before its client, whichever forwarder has seen to that. */
  async cleaned(address: string | undefined): Promise<void> {
    const isCleaned = async () => {
      const { forwarder } = this;
      const observe = async () => {
        await forwarder.started; // who does not listen yet does not answer
        return await forwarder.inventory();
      };
      const seen = await Promise.race([observe(), forwarder.ended.then(() => undefined)]);
      return seen?.vfs.some((vf) => vf.address === address && !vf.isHeld && vf.state === "idle") ?? false;
    };
    await eventually(isCleaned, (isSo) => isSo);
  }

  /** An operator gives the VF of the pod's token to that driver, or to none: what then binds it is a step of a Request. */
  async giveTo({ tokenId }: SandboxPod, driver: "igbvf" | undefined): Promise<void> {
    const { drivers, devices } = this.sandbox.machine;
    const { address = "" } = (await this.forwarder.inventory()).vfs.find((one) => one.tokenId === tokenId) ?? {};
    // Who cleans it may take its driver away meanwhile.
    const before = await devices.readLink(`${address}/driver`).catch(() => undefined);
    const name = before?.split("/").at(-1);
    if (name === driver) return;
    await devices.writeText(`${address}/driver_override`, driver === undefined ? "vfio-pci" : "\n");
    if (name !== undefined) await drivers.writeText(`${name}/unbind`, address);
    if (driver !== undefined) await drivers.writeText(`${driver}/bind`, address);
  }

  /**
   * Lets the forwarder die at each point of what is reported, before and after each step, as often as it takes: one death finds every
   * pod but one at another point, and that one served. An unsynced disk has lost by then what was not synced, and where it was about
   * to be synced it is torn; that holds up every other call, so one call of a death stands there, and came last. It does so where no
   * other death leaves the same. What a real file has after a write is what the next step finds. Resolves with how many points there are.
   */
  async eachPoint(story: PodStory, { reaches, ended, isFollowed, at: where = /./ }: PointOptions): Promise<number> {
    // The operator of the story before has just bound a driver, and the host's settings come back.
    const dumped = async () => textOf(await this.dump(), ended);
    const before = await eventually(dumped, (text) => !text.includes('"quarantined"'));
    const round = async (work: readonly Work[]) => {
      try {
        const reached = await this.#round(work, story, isFollowed);
        let seen = "";
        const isSame = async () => {
          seen = textOf(await this.dump(), ended);
          return seen === before;
        };
        await eventually(isSame, (same) => same).catch(() => assert.equal(seen, before));
        return reached;
      } catch (cause) {
        const log = readFileSync(`${this.sandbox.folder}/forwarder.log`, "utf8").split("\n").slice(-40).join("\n");
        const where = work.map(({ point }) => (point ? `${point.name} ${point.nth}` : "nowhere")).join("; ");
        throw new Error(`killed ${where}: ${String(cause)}\n${log}`, { cause });
      }
    };
    const served = [{ at: 0, point: undefined }];
    let points = await round(served);
    // When the journal is written again depends on all that was before: it is no step of this call, and is not due soon after.
    if (points.some(({ name }) => name.includes("journal.new"))) points = await round(served);
    assert.deepEqual(stepsIn(points), reaches, "the call takes other steps than the story names");
    const works = points.map((point, at) => ({ at, point })).filter(({ point }) => where.test(point.name));
    const together = works.filter(({ point }) => !isOnDisk(point));
    const unsynced = works.filter(({ at }) => this.#disk && isLostAlone(points, at));
    // Of a torn record it cannot be said from here which it was: a client that stays away may still be served.
    const torn = unsynced.map(({ point }) => ({ at: 1, point }));
    const alone: (typeof works)[number][] = [];
    while (together.length > 0) {
      const last = torn.splice(0, 1);
      const some = together.splice(0, this.pods.length - 1 - last.length);
      const reached = await round([...some, { at: 0, point: undefined }, ...last]);
      // What calls do side by side has no one order: where one has come past its point, it is sent there again alone.
      alone.push(...[...some, ...last].filter(({ point }) => !has(reached, point)));
    }
    const missed: (typeof works)[number]["point"][] = [];
    for (const work of [...torn, ...alone]) {
      let isReached = false;
      // Entries that are written at once share a sync: there may be one fewer than when the points were counted.
      for (let tries = 0; !isReached && tries < TRIES; tries += 1) isReached = has(await round([work]), work.point);
      if (!isReached) missed.push(work.point);
    }
    const [first, ...more] = missed;
    const isShared = more.length === 0 && first !== undefined && isSync(first) && first.nth > 1;
    assert.ok(!first || isShared, `the call does not come to ${first?.name} ${first?.nth}`);
    return points.length - missed.length;
  }

  /** Resolves with the points that were died at; where none was to be, with those that were passed. */
  async #round(work: readonly Work[], story: PodStory, isFollowed: true | undefined) {
    const { forwarder } = this;
    const reached: CrashPoint[] = [];
    const fate = work.some(({ point }) => point && isOnDisk(point)) ? FATES.torn : FATES.lost;
    const death = new Death(work.length, async () => {
      await this.#kill(fate);
      await this.#isServing();
    });
    const playing = work.map(async ({ at, point }, i) => {
      const pod = this.pods[i] ?? assert.fail("more points than pods");
      let where: string | undefined = "before anything";
      const kill: Kill = async (act) => {
        if (point && isOnDisk(point)) await death.onlyOneIsMissing;
        const [call, gone] = [traceParent(isFollowed), new AbortController()];
        const halted = forwarder.halt(call, point);
        const working = act({ signal: gone.signal, traceparent: call });
        where = await Promise.race([halted, working.then(() => undefined)]);
        if (point && where !== undefined) reached.push(point);
        if (work.length === 1 && !point) {
          // What is written is synced next, and nothing waits for that where a VF is forgotten.
          await eventually(() => stepsIn(forwarder.pointsOf(call)), isSynced);
          reached.push(...forwarder.pointsOf(call));
        }
        await death.comes();
        gone.abort(new Error("the forwarder is dead"));
        await working.catch(() => {});
        return where !== undefined;
      };
      try {
        return await story(pod, kill, at);
      } catch (cause) {
        death.fail(cause);
        throw new Error(`${pod.name}, killed ${where ?? "when it was served"}: ${String(cause)}`, { cause });
      }
    });
    try {
      const endings = await Promise.all(playing);
      // A Close by an earlier name that was held back (nsm/request/close.ts) ends with its time.
      this.forwarder.leap(HELD_BACK_MS);
      // Out of a namespace that the next forwarder was not passed it goes with its driver, when its Close is answered.
      for (const ending of endings) await ending?.();
      for (const { pod } of this.pods.slice(0, work.length)) {
        await eventually(
          () => pod.links(),
          ({ length }) => length === 0,
        );
      }
    } finally {
      await Promise.allSettled(playing);
      for (const client of this.#clients.splice(0)) await client.hangUp();
    }
    return reached;
  }

  /** The next one finds of what was not synced what the fate leaves, where the disk is one that loses it. */
  async #kill(fate: Fate): Promise<void> {
    await this.forwarder.kill();
    this.#disk = this.#disk?.afterPowerCut(fate);
    this.#spawnNext();
  }

  /** Kills the forwarder where it is and starts the next one. */
  async restart(meanwhile: () => void): Promise<void> {
    await this.forwarder.kill();
    this.#disk = this.#disk?.afterPowerCut(FATES.lost);
    meanwhile();
    this.#spawnNext();
    await this.#isServing();
  }

  async stop(): Promise<{ sent: number; lost: number } | undefined> {
    const pings = await this.#pings?.stop();
    try {
      await this.bystander?.client.close();
    } finally {
      for (const client of this.#clients.splice(0)) await client.hangUp();
      await this.forwarder.kill();
      await this.sandbox.stop();
    }
    return pings;
  }

  get #isUpgraded(): boolean {
    return this.#isUpgradedEachTime && this.#deaths > 0;
  }

  #spawnNext(): void {
    this.#deaths += 1;
    if (this.#isUpgraded) this.sandbox.upgradeTo(`forwarder-after-${this.#deaths}`);
    this.forwarder = this.#spawn();
  }

  #spawn(): KillableForwarder {
    const logFile = `${this.sandbox.folder}/forwarder.log`;
    const { machine, forwarderSettings, pfConfigFile, cgroupPath } = this.sandbox;
    const node = { machine, forwarderSettings, pfConfigFile, cgroupPath, disk: this.#disk };
    return new KillableForwarder(node, { program: this.#program, logFile });
  }

  /** All unhealthy: the list of the dead one, whose stream has ended. */
  async #isServing(): Promise<void> {
    await this.forwarder.started;
    await this.sandbox.kubelet.until(
      SANDBOX_RESOURCE,
      (devices) => devices.length === this.#vfs && devices.some(({ healthy }) => healthy),
    );
    // The manager finds an upgraded forwarder when its time of the connection is up.
    if (this.#isUpgraded) await this.sandbox.nsmgr.timeUp();
    // What a torn disk has left is written again with the first change: this is not to be one of those that are counted.
    await this.bystander?.client.request();
  }
}

function isOnDisk({ name }: CrashPoint): boolean {
  return name.split(" ").at(1) === "disk";
}

function isSync({ name }: CrashPoint): boolean {
  return name.startsWith("before disk datasync");
}

/**
 * The sync of a record with which the journal alone loses something: the step before it was another record, or there was none. A death
 * behind any other step has lost the record that follows it, too, and is one of the points.
 */
function isLostAlone(points: readonly CrashPoint[], at: number): boolean {
  const point = points[at];
  if (!point || !isSync(point)) return false;
  const before = points.slice(0, at).findLast(({ name }) => !name.includes(" disk write "));
  return before === undefined || isOnDisk(before);
}

function has(points: readonly CrashPoint[], { name, nth }: CrashPoint): boolean {
  return points.some((point) => point.name === name && point.nth === nth);
}

function isSynced(steps: Readonly<Record<string, number>>): boolean {
  return steps["disk write journal"] === steps["disk datasync journal"];
}

/** How often each step is taken. */
function stepsIn(points: readonly CrashPoint[]): Readonly<Record<string, number>> {
  const begun = points.flatMap(({ name }) => (name.startsWith("before ") ? [name.slice("before ".length)] : []));
  return Object.fromEntries(begun.sort().map((name) => [name, begun.filter((one) => one === name).length]));
}

function textOf(dump: unknown, ended: "ended" | undefined): string {
  return JSON.stringify(dump, (key, value) => (anew(key, ended) ? "again" : value), 1);
}

/** W3C's, by which the forwarder's process names the call. */
function traceParent(isFollowed: true | undefined): string {
  return `00-${randomBytes(16).toString("hex")}-${randomBytes(8).toString("hex")}-${isFollowed ? "03" : "01"}`;
}

/** What the kernel made again may differ where a network device has ended with its driver. */
function anew(key: string, ended: "ended" | undefined): boolean {
  return ended !== undefined && ["wireEnd", "host"].includes(key);
}
