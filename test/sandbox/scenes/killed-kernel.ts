// The forwarder is a process of its own, and is killed with SIGKILL before and after every step of its that reaches the disk or
// the kernel: the next one finds the node as the dead one left it, sockets and descriptors too. VFIO: killed-vfio.ts.
import assert from "node:assert/strict";
import { after, describe, test } from "node:test";
import type { UnsyncedDisk } from "../../../sandbox/machine/unsynced-disk.ts";
import { SANDBOX_VLAN } from "../../../sandbox/sandbox.ts";
import type { Connection } from "../../../src/gen/connection_pb.ts";
import { needs } from "../../needs.ts";
import { KillScene, type PointOptions } from "./kill-scene.ts";

const RETRY = { timeoutMs: 30_000 };

/** The VF has no driver before. */
const REQUEST: PointOptions["reaches"] = {
  "devices write driver_override": 2,
  "disk datasync journal": 6,
  "disk write journal": 6,
  "drivers write bind": 1,
  "rtnetlink addAddress": 2,
  "rtnetlink addRoute": 2,
  "rtnetlink setLink address": 1,
  "rtnetlink setLink name": 1,
  "rtnetlink setLink netns, name": 1,
  "rtnetlink setLink removeAltNames": 1,
  "rtnetlink setLink up": 2,
  "vf-settings set mac": 1,
  "vf-settings set vlan": 1,
};
const CLOSE: PointOptions["reaches"] = {
  "devices write driver_override": 2,
  "disk datasync journal": 4,
  "disk write journal": 4,
  "drivers write bind": 1,
  "drivers write unbind": 1,
  "rtnetlink setLink address": 1,
  "rtnetlink setLink netns, name": 1,
  "rtnetlink setLink up": 1,
  "vf-settings set mac": 2,
  "vf-settings set vlan": 1,
};
const CHANGE: PointOptions["reaches"] = {
  "disk datasync journal": 3,
  "disk write journal": 3,
  "rtnetlink addAddress": 1,
  "rtnetlink addRoute": 1,
  "rtnetlink deleteAddress": 2,
  "rtnetlink setLink address": 1,
  "rtnetlink setLink mtu": 1,
  "vf-settings set mac": 1,
  "vf-settings set vlan": 1,
};

type Story = (scene: KillScene) => Promise<number>;

const stories: Readonly<Record<string, Story>> = {
  "before and after each step of a Request leaves nothing behind, and the next Request works": (scene) =>
    scene.eachPoint(
      async (pod, kill) => {
        const client = scene.direct(pod);
        await scene.giveTo(pod, undefined); // so that its steps are all that a Request can have
        if (await kill((call) => client.request(call))) await client.request(RETRY);
        assert.equal((await pod.pod.link("nsm-1"))?.up, true);
        await client.close(RETRY);
        return undefined;
      },
      { reaches: REQUEST, ended: "ended" },
    ),

  "before and after each step of a Close is closed again, or asked for again, as if nothing had been": (scene) =>
    scene.eachPoint(
      async (pod, kill, at) => {
        const client = scene.direct(pod);
        await client.request(RETRY);
        const address = client.connection?.mechanism?.parameters["pciAddress"];
        const isOpen = await kill(async (call) => {
          await client.close(call);
          await scene.cleaned(address); // what the Close has begun ends after its answer
        });
        if (isOpen && at % 2 === 0) {
          await client.request(RETRY);
          assert.equal((await pod.pod.link("nsm-1"))?.up, true);
        }
        if (isOpen) await client.close(RETRY);
        return undefined;
      },
      { reaches: CLOSE, isFollowed: true },
    ),

  "before and after each step of a change leaves the client its interface, and the next Request changes it": (
    scene,
  ) => {
    const changes = new Changes(scene);
    return scene.eachPoint(
      async (pod, kill) => {
        const client = scene.direct(pod);
        changes.forget(pod.name);
        await client.request(RETRY);
        changes.request(pod.name);
        const isUnchanged = await kill((call) => client.request(call));
        assert.ok(await pod.pod.link("nsm-1"), "the client has lost its interface");
        const answer = isUnchanged ? await client.request(RETRY) : client.connection;
        const { mtu, up, mac, addresses, routes = [] } = (await pod.pod.link("nsm-1")) ?? {};
        assert.deepEqual(
          { mtu, up, mac, addresses, hasRoute: routes.some((route) => route.startsWith("10.21.")) },
          { ...changes.desiredOf(pod.name), up: true, hasRoute: true },
        );
        assert.equal(await vlanOf(scene, answer), SANDBOX_VLAN + 1);
        await client.close(RETRY);
        return undefined;
      },
      { reaches: CHANGE },
    );
  },
};

/** On one node; without a disk the forwarder writes to files, which outlive it whether they were synced or not. */
export function killInKernel(
  name: string,
  isLogged: (title: string) => boolean,
  { makeDisk, isUpgraded }: { readonly makeDisk?: () => UnsyncedDisk; readonly isUpgraded?: true } = {},
): void {
  describe(name, () => {
    const shared = KillScene.shared(() =>
      KillScene.open({ vfsPerPf: 8, disk: makeDisk?.(), ...(isUpgraded && { isUpgraded }) }),
    );
    after(() => shared.close());

    for (const [title, story] of Object.entries(stories)) {
      if (!isLogged(title)) continue;
      test(title, async (t) => {
        if (!needs(t, "netns", "veth", "bridge")) return;
        t.diagnostic(`killed at each of ${await shared.run(story)} points`);
      });
    }
  });
}

/** The endpoint requests something else in everything that a connection has. */
class Changes {
  readonly #changed = new Set<string>();

  constructor({ sandbox: { endpoint }, bystander }: KillScene) {
    const own = bystander?.client.connection?.context?.ethernetContext?.srcMac ?? "";
    endpoint.want((connection) => {
      const name = clientOf(connection);
      if (name === bystander?.name) return { ethernet: { srcMac: own, vlanTag: SANDBOX_VLAN } };
      if (!this.#changed.has(name)) return { ethernet: { srcMac: macOf(name, 1), vlanTag: SANDBOX_VLAN } };
      const { mac: srcMac, mtu } = this.desiredOf(name);
      const ethernet = { srcMac, vlanTag: SANDBOX_VLAN + 1 };
      return { ethernet, mtu, srcRoutes: [{ prefix: "10.21.0.0/16" }] };
    });
    endpoint.knobs.alterReply = (reply) => {
      const { ipContext } = reply.context ?? {};
      if (ipContext && this.#changed.has(clientOf(reply)))
        ipContext.srcIpAddrs = this.desiredOf(clientOf(reply)).addresses;
    };
  }

  request(name: string): void {
    this.#changed.add(name);
  }

  forget(name: string): void {
    this.#changed.delete(name);
  }

  desiredOf(name: string) {
    return { mac: macOf(name, 2), mtu: 1400, addresses: [`172.16.1.${200 + numberOf(name)}/32`] };
  }
}

function clientOf({ path }: Connection): string {
  return path?.pathSegments[0]?.name ?? "";
}

function numberOf(name: string): number {
  return Number(name.split("-").at(-1));
}

function macOf(name: string, generation: number): string {
  return `0a:55:44:33:0${generation}:${numberOf(name).toString(16).padStart(2, "0")}`;
}

/** As the physical function has it. */
async function vlanOf({ sandbox: { machine } }: KillScene, connection: Connection | undefined): Promise<number> {
  const address = connection?.mechanism?.parameters["pciAddress"] ?? "";
  const pf = (await machine.devices.readLink(`${address}/physfn`)).split("/").at(-1) ?? "";
  for (const name of await machine.devices.list(pf)) {
    if (!name.startsWith("virtfn") || !(await machine.devices.readLink(`${pf}/${name}`)).endsWith(address)) continue;
    return (await machine.pfPort({ address: pf }).read(Number(name.slice("virtfn".length)))).vlan ?? 0;
  }
  return assert.fail(`${address} is no VF of ${pf}`);
}
