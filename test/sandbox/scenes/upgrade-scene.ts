// A node whose forwarder is upgraded as a DaemonSet does it: each instance is another pod, with another name and another SPIFFE ID, and the
// manager behaves as the SDK's. Clients heal as NSM's do, with and without a check of their data plane.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { commonStandIns } from "../../../sandbox/nic/sysfs.ts";
import type { Client } from "../../../sandbox/nsm/client.ts";
import type { Container } from "../../../sandbox/pod/container.ts";
import type { PodCgroups } from "../../../sandbox/pod/pod-cgroups.ts";
import { KillableForwarder } from "../../../sandbox/process/killable.ts";
import { SANDBOX_RESOURCE, Sandbox, type SandboxPod } from "../../../sandbox/sandbox.ts";
import { systemClock as clock } from "../../../src/async/index.ts";
import { type Connection, State } from "../../../src/gen/connection_pb.ts";
import type { Netns } from "../../../src/kernel/index.ts";
import { silentLog } from "../../../src/telemetry/index.ts";
import { bundleProgram } from "../../../tools/bundle-program.ts";
import { until, within } from "../../scenes/until.ts";
import { BystanderPings } from "./bystander-pings.ts";
import { deviceRules } from "./device-rules.ts";
import { IpMonitor } from "./ip.ts";

const ROOT = join(import.meta.dirname, "..", "..", "..");
const VFS = 8;

/** `end` closes its connection. */
type EndedPod = SandboxPod & { end(): Promise<void> };

export class UpgradeScene {
  readonly sandbox: Sandbox;
  readonly #program: string;
  #forwarder: KillableForwarder;
  #nth = 1;
  readonly #cgroups: PodCgroups | undefined;
  /** Of the host's namespace and of pods', by their names. */
  readonly #monitors = new Map<string, IpMonitor>();
  /** Before the upgrade. */
  #deviceRules: readonly string[] = [];

  private constructor(sandbox: Sandbox, program: string, cgroups: PodCgroups | undefined) {
    this.sandbox = sandbox;
    this.#cgroups = cgroups;
    this.#program = program;
    sandbox.upgradeTo(this.name);
    this.#forwarder = this.#spawn();
  }

  static async open(cgroups?: PodCgroups): Promise<UpgradeScene> {
    const program = await bundleProgram(ROOT, "sandbox/process/forwarder-process.ts");
    const machine = { realLinks: true, pfs: 2, vfsPerPf: VFS / 2, vfioStandIns: commonStandIns };
    const settings = { adminListenOn: undefined };
    const sandbox = await Sandbox.start({ machine, cgroups, settings, log: silentLog, clock });
    sandbox.nsmgr.dialsFormer();
    const scene = new UpgradeScene(sandbox, program, cgroups);
    await scene.#isServing();
    await scene.#monitor("host", sandbox.machine.netns);
    return scene;
  }

  /** Of the instance that runs. */
  get name(): string {
    return `forwarder-${this.#nth}`;
  }

  get logFile(): string {
    return `${this.sandbox.folder}/forwarder.log`;
  }

  /** A pod with a network device. `end` closes, and none of the pings of its whole life may have been lost. */
  async kernelPod(name: string): Promise<EndedPod> {
    const { end, ...pod } = await this.silentPod(name);
    const pings = new BystanderPings(pod);
    const endPinging = async () => {
      const counted = await pings.stop();
      assert.deepEqual(counted, { ...counted, lost: 0 });
      await end();
    };
    return { ...pod, end: endPinging };
  }

  /** The same, and nothing travels to it. */
  async silentPod(name: string): Promise<EndedPod> {
    const pod = await this.sandbox.startPod(name);
    await pod.client.request();
    await this.#monitor(name, pod.pod.netns);
    const end = async () => {
      await this.#monitors.get(name)?.close();
      this.#monitors.delete(name);
      await this.#close(pod);
    };
    return { ...pod, end };
  }

  /** Until its virtual function is as before: what is still done for that is none of the next upgrade's. */
  async #close({ client }: Pick<SandboxPod, "client">): Promise<void> {
    await client.close();
    const isIdle = async () => {
      const { vfs } = await this.#forwarder.inventory();
      return vfs.every(({ isHeld, state, problem }) => !isHeld && state === "idle" && problem === undefined);
    };
    await until("every virtual function is idle", isIdle);
  }

  /** A pod that has its group open. `end` closes. */
  async vfioPod(name: string): Promise<EndedPod & { readonly container: Container }> {
    const pod = await this.sandbox.startVfioPod(name);
    await pod.client.request();
    await pod.container.makeNodes(pod.client.connection ?? assert.fail());
    const group = groupIn(pod.client.connection);
    assert.equal(await pod.container.open(group), "");
    const end = async () => {
      await pod.container.close(group);
      await this.#close(pod);
    };
    return { ...pod, end };
  }

  /** The instance ends, and the next one is another pod. */
  async upgrade(by: "SIGTERM" | "SIGKILL", meanwhile: () => Promise<unknown> = async () => {}): Promise<void> {
    this.#forwarder.signal(by);
    await within(`the end by ${by}`, this.#forwarder.ended);
    await meanwhile();
    await this.#news();
    this.#deviceRules = deviceRules(this.#cgroups);
    this.#nth += 1;
    this.sandbox.upgradeTo(this.name);
    this.#forwarder = this.#spawn();
    await this.#isServing();
  }

  /** What the instance that runs has changed of the node since the upgrade, and what has changed as the kernel says. */
  async changed(): Promise<readonly string[]> {
    const now = deviceRules(this.#cgroups);
    const [gone, come] = [without(this.#deviceRules, now), without(now, this.#deviceRules)];
    return [
      ...this.#forwarder.writes,
      ...(await this.#news()),
      ...gone.map((rules) => `no longer ${rules}`),
      ...come.map((rules) => `now ${rules}`),
    ];
  }

  async #monitor(name: string, netns: Netns): Promise<void> {
    const monitor = new IpMonitor(netns);
    this.#monitors.set(name, monitor);
    await monitor.news();
  }

  /** Since it was called last. */
  async #news(): Promise<readonly string[]> {
    const all = [...this.#monitors].map(async ([name, monitor]) =>
      (await monitor.news()).map((line) => `${name}: ${line}`),
    );
    return (await Promise.all(all)).flat();
  }

  /** A failure says what the forwarders have logged last. */
  async played(story: () => Promise<void>): Promise<void> {
    try {
      await story();
    } catch (cause) {
      const log = readFileSync(this.logFile, "utf8").split("\n").slice(-60).join("\n");
      throw new Error(`${String(cause)}\n${log}`, { cause });
    }
  }

  async stop(): Promise<void> {
    for (const monitor of this.#monitors.values()) await monitor.close();
    await this.#forwarder.kill();
    await this.sandbox.stop();
  }

  #spawn(): KillableForwarder {
    const { machine, forwarderSettings, pfConfigFile, cgroupPath } = this.sandbox;
    const node = { machine, forwarderSettings, pfConfigFile, cgroupPath };
    return new KillableForwarder(node, { program: this.#program, logFile: this.logFile });
  }

  async #isServing(): Promise<void> {
    await this.#forwarder.started;
    await this.sandbox.kubelet.until(
      SANDBOX_RESOURCE,
      (devices) => devices.length === VFS && devices.some(({ healthy }) => healthy),
    );
  }
}

/** A client whose data plane is well repeats its Request until it is served. Resolves with what it was refused with. */
export async function heal(client: Client): Promise<readonly string[]> {
  const refusals: string[] = [];
  const isServed = async () => {
    try {
      await client.request();
      return true;
    } catch (error) {
      refusals.push(String(error));
      return false;
    }
  };
  await until("a Request of the client is served", isServed).catch((error: unknown) => {
    throw new Error(`${String(error)}: ${[...new Set(refusals)].join("; ")}`);
  });
  return refusals;
}

/** A client without such a check has closed at once, which reached no forwarder, and reselects until it is served. */
export async function reselect(client: Client): Promise<void> {
  const alter = ({ connection }: ReturnType<Client["proposal"]>) => {
    delete connection?.mechanism;
    Object.assign(connection ?? {}, { networkServiceEndpointName: "", state: State.RESELECT_REQUESTED });
  };
  const isServed = () =>
    client.request({ alter }).then(
      () => true,
      () => false,
    );
  await until("a Request that reselects is served", isServed);
}

export function groupIn(connection: Connection | undefined): string {
  return connection?.mechanism?.parameters["iommuGroup"] ?? assert.fail("the answer names no IOMMU group");
}

function without(all: readonly string[], others: readonly string[]): readonly string[] {
  return all.filter((one) => !others.includes(one));
}

/** Our segment of the client's path. */
export function segmentIn({ connection }: Client): string {
  const { name, id } = connection?.path?.pathSegments[2] ?? assert.fail("the client has no path to us");
  return `${name} ${id}`;
}
