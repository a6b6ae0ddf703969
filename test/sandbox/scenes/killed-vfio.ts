// VFIO in a forwarder that is killed with SIGKILL before and after every step: killed-kernel.ts says how. What a process of a pod
// may open is for the kernel to say, by the rules of version 1 and by the BPF programs of version 2.
import assert from "node:assert/strict";
import { after, describe, test } from "node:test";
import { UnsyncedDisk } from "../../../sandbox/machine/unsynced-disk.ts";
import { commonStandIns } from "../../../sandbox/nic/sysfs.ts";
import type { Client } from "../../../sandbox/nsm/client.ts";
import type { Container } from "../../../sandbox/pod/container.ts";
import type { PodCgroups } from "../../../sandbox/pod/pod-cgroups.ts";
import type { SandboxPod } from "../../../sandbox/sandbox.ts";
import { KeyedQueue } from "../../../src/async/index.ts";
import type { NetworkServiceRequest } from "../../../src/gen/networkservice_pb.ts";
import { type Need, needs } from "../../needs.ts";
import { SharedUntilFailure } from "./fresh-after-failure.ts";
import { KillScene, type KillSceneOptions, type PodStory, type PointOptions } from "./kill-scene.ts";
import { eventually } from "./story.ts";
import { groupOf, nothingGranted, opening } from "./vfio-scene.ts";

const RETRY = { timeoutMs: 100_000 };
const PERMITTED = ["", ""];
const REFUSED = ["EPERM", "EPERM"];

const VFS_PER_PF = 8;
/** The kernel asks the cgroup first: where no device has the number, ENXIO says that it was let through. */
const unused = Array.from({ length: 2 * VFS_PER_PF }, (_, i) => ({ major: 1, minor: 100 + i }));

/** A scene with a container in each of its pods. */
class Stage {
  readonly scene: KillScene;
  readonly #containers = new Map<string, Container>();
  /** A container answers one question at a time. */
  readonly #turns = new KeyedQueue<string>();

  constructor(scene: KillScene) {
    this.scene = scene;
  }

  static async open(options: Pick<KillSceneOptions, "cgroups" | "disk" | "isUpgraded">): Promise<Stage> {
    const vfioStandIns = { ...commonStandIns, groups: [...commonStandIns.groups, ...unused] };
    const scene = await KillScene.open({ ...options, vfsPerPf: VFS_PER_PF, machine: { vfioStandIns } });
    const stage = new Stage(scene);
    for (const pod of [scene.bystander ?? assert.fail(), ...scene.pods]) {
      stage.#containers.set(pod.name, await scene.sandbox.startContainer(pod));
    }
    return stage;
  }

  client(pod: SandboxPod): Client {
    // A client on a unified host does not know its cgroup.
    return this.scene.direct(pod, { mechanism: "VFIO", parameters: { tokenID: pod.tokenId, cgroupDir: "" } });
  }

  /** What a process of the pod can do with the nodes of the client's group. */
  async reach(pod: Pick<SandboxPod, "name">, client: Client): Promise<readonly string[]> {
    const container = this.#containers.get(pod.name) ?? assert.fail();
    return await this.#turns.run(pod.name, async () => {
      container.forgetNodes();
      await container.makeNodes(client.connection ?? assert.fail());
      return (await opening(container, groupOf(client))).map((error) => (error === "ENXIO" ? "" : error));
    });
  }

  /** The pod has the group, and no other has. */
  async hasIt(pod: SandboxPod, client: Client): Promise<void> {
    assert.deepEqual(await this.reach(pod, client), PERMITTED);
    assert.deepEqual(await this.reach({ name: "bystander" }, client), REFUSED);
  }

  /** Its VF is free again, and has its driver of before. */
  async isRestored(pod: SandboxPod, group?: string): Promise<void> {
    const { scene } = this;
    const ownOf = async () => (await scene.forwarder.inventory()).vfs.find(({ tokenId }) => tokenId === pod.tokenId);
    // Who cleans it takes its driver away and gives it back.
    await eventually(ownOf, (vf) => vf?.isHeld === false && vf.state !== "reclaiming");
    if (group !== undefined) {
      const container = this.#containers.get(pod.name) ?? assert.fail();
      assert.deepEqual(await this.#turns.run(pod.name, () => opening(container, group)), REFUSED);
    }
    await scene.giveTo(pod, "igbvf");
  }
}

interface Story {
  /** With cgroups of version 2 it dies only here: whatever else the call does is the same with both. */
  readonly unified?: RegExp;
  /** With cgroups of version 1. */
  readonly reaches: PointOptions["reaches"];
  readonly story: (stage: Stage, ...of: Parameters<PodStory>) => ReturnType<PodStory>;
}

const stories: Readonly<Record<string, Story>> = {
  "before and after each step of a VFIO Request, grants nothing that stays": {
    reaches: {
      "cgroups write devices.allow": 2,
      "device-access apply": 1,
      "devices write driver_override": 1,
      "disk datasync journal": 6,
      "disk write journal": 6,
      "drivers write bind": 1,
      "drivers write unbind": 1,
      "rtnetlink setLink address": 2,
      "vf-settings set mac": 1,
      "vf-settings set vlan": 1,
    },
    story: async (stage, pod, kill, at) => {
      const client = stage.client(pod);
      const isOpen = await kill((call) => client.request(call));
      if (isOpen && at % 3 === 0) return () => stage.isRestored(pod); // its client does not come back
      if (isOpen) await client.request(RETRY);
      await stage.hasIt(pod, client);
      const group = groupOf(client);
      await client.close(RETRY);
      return () => stage.isRestored(pod, group);
    },
  },

  "before and after each step of a VFIO Close, closes it again": {
    reaches: {
      "cgroups write devices.deny": 2,
      "device-access revoke": 1,
      "disk datasync journal": 3,
      "disk write journal": 3,
      "vf-settings set mac": 1,
      "vf-settings set vlan": 1,
    },
    story: async (stage, pod, kill, at) => {
      const client = stage.client(pod);
      await client.request(RETRY);
      await stage.hasIt(pod, client);
      const group = groupOf(client);
      const isOpen = await kill((call) => client.close(call));
      if (isOpen && at % 3 === 0) {
        await client.request(RETRY);
        await stage.hasIt(pod, client);
      }
      if (isOpen) await client.close(RETRY);
      return () => stage.isRestored(pod, group);
    },
  },

  "before and after each step from VFIO to KERNEL, keeps nothing open": {
    unified: / device-access /,
    reaches: {
      "cgroups write devices.deny": 2,
      "device-access revoke": 1,
      "devices write driver_override": 2,
      "disk datasync journal": 7,
      "disk write journal": 7,
      "drivers write bind": 1,
      "drivers write unbind": 1,
      "rtnetlink addAddress": 2,
      "rtnetlink addRoute": 2,
      "rtnetlink setLink address": 1,
      "rtnetlink setLink name": 1,
      "rtnetlink setLink netns, name": 1,
      "rtnetlink setLink removeAltNames": 1,
      "rtnetlink setLink up": 2,
      "vf-settings set mac": 2,
      "vf-settings set vlan": 2,
    },
    story: async (stage, pod, kill) => {
      const client = stage.client(pod);
      await client.request(RETRY);
      await stage.hasIt(pod, client);
      const group = groupOf(client);
      const change = { fds: [pod.pod.netns.fd], alter: wantsLike(stage.scene.direct(pod)) };
      if (await kill((call) => client.request({ ...call, ...change }))) await client.request({ ...RETRY, ...change });
      assert.equal((await pod.pod.link("nsm-1"))?.up, true);
      await client.close({ ...RETRY, fds: [pod.pod.netns.fd] });
      return () => stage.isRestored(pod, group);
    },
  },

  "before and after each step from KERNEL to VFIO, leaves no interface": {
    unified: / device-access /,
    reaches: {
      "cgroups write devices.allow": 2,
      "device-access apply": 1,
      "devices write driver_override": 3,
      "disk datasync journal": 8,
      "disk write journal": 8,
      "drivers write bind": 2,
      "drivers write unbind": 2,
      "rtnetlink setLink address": 3,
      "rtnetlink setLink netns, name": 1,
      "rtnetlink setLink up": 1,
      "vf-settings set mac": 3,
      "vf-settings set vlan": 2,
    },
    story: async (stage, pod, kill) => {
      const client = stage.scene.direct(pod);
      await client.request(RETRY);
      const change = { alter: wantsLike(stage.client(pod)) }; // the client passes its namespace
      if (await kill((call) => client.request({ ...call, ...change }))) await client.request({ ...RETRY, ...change });
      assert.deepEqual(await pod.pod.links(), []);
      await stage.hasIt(pod, client);
      const group = groupOf(client);
      await client.close(RETRY);
      return () => stage.isRestored(pod, group);
    },
  },
};

/** All stories, on cgroups of one version; it closes them. With version 1 the disk loses what was not synced. */
export function killInVfio(version: 1 | 2, cgroups: PodCgroups | undefined, wants: readonly Need[]): void {
  describe(`a forwarder that is killed, with version ${version} of cgroups,`, () => {
    const shared = new SharedUntilFailure(
      // With files, and with version 2, the next forwarder is another pod's.
      () => Stage.open({ cgroups, disk: version === 1 ? new UnsyncedDisk() : undefined, isUpgraded: version === 2 }),
      async ({ scene }) => {
        const pings = await scene.stop();
        assert.deepEqual(pings, { ...pings, lost: 0 });
      },
    );
    after(() => shared.close().finally(() => cgroups?.close()));

    for (const [name, { story, ...points }] of Object.entries(stories)) {
      test(name, async (t) => {
        if (!needs(t, ...wants)) return;
        const steps = await shared.run(async (stage) => {
          const count = await stage.scene.eachPoint((pod, kill, at) => story(stage, pod, kill, at), {
            ...(version === 1 ? { reaches: points.reaches } : unifiedPoints(points)),
            ended: "ended",
          });
          if (version === 1) nothingGranted(cgroups ?? assert.fail());
          return count;
        });
        t.diagnostic(`killed at each of ${steps} points`);
      });
    }
  });
}

/** A cgroup of version 2 has no files for devices. */
function unifiedPoints({ reaches, unified: at }: Omit<Story, "story">): PointOptions {
  return { reaches: Object.fromEntries(Object.entries(reaches).filter(([step]) => !step.startsWith("cgroups "))), at };
}

/** The same connection with another mechanism: what the other client would prefer. */
function wantsLike(other: Client): (request: NetworkServiceRequest) => void {
  const { mechanismPreferences } = other.proposal();
  return (request) => {
    delete request.connection?.mechanism;
    request.mechanismPreferences = mechanismPreferences;
  };
}
