// The stage of the scenarios: one whole node for all stories of a file, and ways to look at it that are not the forwarder's own.
import assert from "node:assert/strict";
import { readdirSync, readlinkSync } from "node:fs";
import { after, describe, test } from "node:test";
import { pictureOf } from "../../../sandbox/demo/node-picture.ts";
import type { Client, ClientOptions } from "../../../sandbox/nsm/client.ts";
import { Endpoint } from "../../../sandbox/nsm/endpoint.ts";
import {
  SANDBOX_SERVICE,
  SANDBOX_VLAN,
  Sandbox,
  type SandboxOptions,
  type SandboxPod,
} from "../../../sandbox/sandbox.ts";
import { systemClock } from "../../../src/async/index.ts";
import type { Forwarder } from "../../../src/forwarder.ts";
import { conditionOf } from "../../../src/inventory/index.ts";
import type { VfSettings } from "../../../src/netdev/index.ts";
import { RpcError } from "../../../src/rpc/index.ts";
import { silentLog } from "../../../src/telemetry/index.ts";
import { type RecordingLog, recordingLog } from "../../../src/telemetry/recording-log.ts";
import { type Need, needs } from "../../needs.ts";
import { SharedUntilFailure } from "./fresh-after-failure.ts";
import { ipDump, withoutIndexes } from "./ip.ts";

/** One story; it leaves the node as it found it, but for pods that it started and that hold nothing. */
export type Story = (scene: Scene) => Promise<void>;

/** A node with a running forwarder. */
export class Scene {
  readonly sandbox: Sandbox;
  /** Of the forwarder. */
  readonly log: RecordingLog;
  forwarder: Forwarder;
  /** The story has changed the node itself, as an operator does: it cannot leave it as it was. */
  isMended = false;
  /** What the story before has left, if it is known. */
  #asItWas: unknown;
  #pods: readonly SandboxPod[] = [];
  #podCount = 0;
  readonly #direct: Client[] = [];

  private constructor(sandbox: Sandbox, log: RecordingLog, forwarder: Forwarder) {
    this.sandbox = sandbox;
    this.log = log;
    this.forwarder = forwarder;
  }

  static async open(options: Omit<SandboxOptions, "log">): Promise<Scene> {
    const log = recordingLog();
    const machine = { realLinks: true, vfsPerPf: 2, ...options.machine };
    const sandbox = await Sandbox.start({ clock: systemClock, ...options, machine, log, peerLog: silentLog });
    try {
      const forwarder = await sandbox.startForwarder();
      const offered = machine.vfsPerPf * (options.machine?.pfs ?? 2);
      await sandbox.kubelet.until("worker.domain/10G", (devices) => devices.length === offered);
      return new Scene(sandbox, log, forwarder);
    } catch (error) {
      await sandbox.stop();
      throw error;
    }
  }

  /** Fails where the story does, and where it leaves the node otherwise than it was. */
  async play(story: Story): Promise<void> {
    const before = this.#asItWas ?? (await this.dump());
    this.#asItWas = undefined;
    await story(this);
    await this.endPods();
    if (!this.isMended) {
      const now = await this.dump();
      assert.deepEqual(now, before);
      this.#asItWas = now;
    }
    this.isMended = false;
  }

  async stop(): Promise<void> {
    await this.endPods();
    await this.sandbox.stop();
  }

  /** A new pod with a token. */
  async pod(): Promise<SandboxPod> {
    this.#podCount += 1;
    const pod = await this.sandbox.startPod(`pod-${this.#podCount}`);
    this.#pods = [...this.#pods, pod];
    return pod;
  }

  /** The pod's client as one that plays the manager too: it hears the forwarder's own codes and words. */
  direct(pod: SandboxPod, options: Partial<ClientOptions> = {}): Client {
    const { sandbox, forwarder } = this;
    const client = sandbox.directClientOf(pod, forwarder.url, options);
    this.#direct.push(client);
    return client;
  }

  /** Another endpoint of the same service; start and close it. */
  endpoint(name: string): Endpoint {
    const { folder, nsmgr } = this.sandbox;
    return new Endpoint({
      log: silentLog,
      clock: systemClock,
      name,
      networkService: SANDBOX_SERVICE,
      prefixes: ["172.16.2.0/24"],
      context: { ethernet: { vlanTag: SANDBOX_VLAN } },
      socketPath: `${folder}/${name}.sock`,
      registryUrl: nsmgr.url,
      actor: this.sandbox.actor(name),
    });
  }

  /** The pods of a story that is over end: their tokens are free for others. */
  async endPods(): Promise<void> {
    for (const { name } of this.#pods) this.sandbox.kubelet.free(name);
    this.#pods = [];
    for (const client of this.#direct.splice(0)) await client.hangUp();
  }

  /** All that is on the node: each namespace as iproute2 shows it, drivers, settings of VFs, what the inventory says. */
  async dump(pods: readonly SandboxPod[] = []): Promise<unknown> {
    const { machine } = this.sandbox;
    await this.cleaned();
    await machine.resets?.settled();
    const picture = await pictureOf(machine);
    const settings = picture.flatMap(({ address, vfs }) =>
      vfs.map((vf) => machine.pfPort({ address }).settingsOf(vf.index)),
    );
    const namespaces = await Promise.all([machine.netns, ...pods.map(({ pod }) => pod.netns)].map(ipDump));
    const vfs = this.forwarder.node.inventory.snapshot().map(({ address, state, connectionId, problem }) => {
      return { address, isHeld: connectionId !== undefined, state: state === "reserved" ? "idle" : state, problem };
    });
    const all = { picture, settings, namespaces, vfs, connections: this.forwarder.nsm.connectionCount };
    return withoutIndexes(all);
  }

  /** Every VF that a client has left is what it was. */
  cleaned(): Promise<void> {
    return untilCleaned(this.forwarder);
  }

  /** The VF that the client was given, as the physical one keeps it. */
  async vfOf(client: Client): Promise<{
    readonly address: string;
    readonly settings: VfSettings;
    /** What of it the VF could not change. */
    readonly adminMac: string | undefined;
  }> {
    const given = client.connection?.mechanism?.parameters["pciAddress"];
    const vf = this.forwarder.node.inventory.snapshot().find(({ address }) => address === given);
    assert.ok(vf, `${given} is no virtual function of the node`);
    const port = this.sandbox.machine.pfPort({ address: vf.pf });
    return { address: vf.address, settings: port.settingsOf(vf.index), adminMac: port.adminMac(vf.index) };
  }

  /** Another pod is served from its Request to its Close: nothing that happened before has harmed the forwarder. */
  async serves(pod: SandboxPod): Promise<void> {
    await pod.client.request();
    assert.equal((await pod.pod.link("nsm-1"))?.up, true);
    await pod.client.close();
  }
}

/** Every VF that a client has left is what it was: until then its network device may be on its way, or made again. */
export async function untilCleaned({ node }: Forwarder): Promise<void> {
  await eventually(
    () => node.inventory.snapshot().filter((vf) => conditionOf(vf, "being-cleaned")),
    ({ length }) => length === 0,
  );
}

/** What real links take. */
export const LINKS: readonly Need[] = ["netns", "veth", "bridge"];

/**
 * Tells the stories one after the other on one node, where the machine can make it: real links in namespaces of their own. After
 * a story that failed, the next one begins on a fresh node.
 */
export function runStories(
  title: string,
  options: Omit<SandboxOptions, "log">,
  stories: Readonly<Record<string, Story>>,
  wants: readonly Need[] = LINKS,
): void {
  describe(title, () => {
    const shared = sharedScene(options);
    after(() => shared.close());
    for (const [name, story] of Object.entries(stories)) {
      test(name, async (t) => {
        if (!needs(t, ...wants)) return;
        await shared.run((scene) => scene.play(story));
      });
    }
  });
}

/** A scene for one story after the other. */
export function sharedScene(options: Omit<SandboxOptions, "log">): SharedUntilFailure<Scene> {
  return new SharedUntilFailure(
    () => Scene.open(options),
    (scene) => scene.stop(),
  );
}

/** Only a net beneath the file's own limit (tools/test-files.ts), so that the failure reports what was seen. */
const NET_MS = 120_000;

/** Looks until it is so; the error says what was seen last. */
export async function eventually<T>(observe: () => T | Promise<T>, isSo: (seen: T) => boolean): Promise<T> {
  const endsAt = systemClock.monotonicMs() + NET_MS;
  for (;;) {
    const seen = await observe();
    if (isSo(seen)) return seen;
    if (systemClock.monotonicMs() >= endsAt) assert.fail(`not so within ${NET_MS} ms: ${JSON.stringify(seen)}`);
    await systemClock.sleep(10);
  }
}

/** Descriptors of this process of one kind, by what they point to: "socket:[123]", "net:[4026531840]", "/tmp/x". */
export function openFiles(kind: "socket" | "net" | "file"): readonly string[] {
  const found = readdirSync("/proc/self/fd").map((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`);
    } catch {
      return ""; // the descriptor of the listing itself
    }
  });
  return found.filter((target) => target.startsWith(kind === "file" ? "/" : `${kind}:`)).sort();
}

/** For `assert.rejects`: the gRPC code, and telling words. */
export function refusal(code: string, message: RegExp): (error: unknown) => true {
  return (error) => {
    assert.ok(error instanceof RpcError, String(error));
    assert.deepEqual(
      [error.code, message.test(error.message)],
      [code, true],
      `${error.code}: ${error.message.slice(0, 500)}`,
    );
    return true;
  };
}
