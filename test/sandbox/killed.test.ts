// The forwarder is a process of its own, and is killed with SIGKILL before and after every step of its that reaches the disk or
// the kernel: the next one finds the node as the dead one left it, sockets and descriptors too. VFIO: killed-vfio.test.ts.
import assert from "node:assert/strict";
import { after, describe, test } from "node:test";
import { SANDBOX_VLAN } from "../../sandbox/sandbox.ts";
import type { Connection } from "../../src/gen/connection_pb.ts";
import { needs } from "../needs.ts";
import { KillScene } from "./kill-scene.ts";

const RETRY = { timeoutMs: 30_000 };

let opening: Promise<KillScene> | undefined;

function story(name: string, tell: (scene: KillScene) => Promise<number>): void {
  test(name, { timeout: 200_000 }, async (t) => {
    if (!needs(t, "netns", "veth", "bridge")) return;
    opening ??= KillScene.open({ vfsPerPf: 8 });
    const kills = await tell(await opening);
    t.diagnostic(`killed at each of ${kills} points`);
    assert.ok(kills > 10, `only ${kills} steps were seen: the interception does not work`);
  });
}

describe("a forwarder that is killed", () => {
  after(async () => {
    const pings = await (await opening)?.stop();
    if (pings) assert.deepEqual(pings, { ...pings, lost: 0 });
  });

  story("before and after each step of a Request leaves nothing behind, and the next Request works", (scene) =>
    scene.eachStep(async (pod, kill) => {
      const client = scene.direct(pod);
      await scene.giveTo(pod, undefined); // so that its steps are all that a Request can have
      if (await kill((call) => client.request(call))) await client.request(RETRY);
      assert.equal((await pod.pod.link("nsm-1"))?.up, true);
      await client.close(RETRY);
    }, "ended"),
  );

  story("before and after each step of a Close is closed again, or asked for again, as if nothing had been", (scene) =>
    scene.eachStep(async (pod, kill, at) => {
      const client = scene.direct(pod);
      await client.request(RETRY);
      const isOpen = await kill((call) => client.close(call));
      if (isOpen && at % 2 === 0) {
        await client.request(RETRY);
        assert.equal((await pod.pod.link("nsm-1"))?.up, true);
      }
      if (isOpen) await client.close(RETRY);
    }),
  );

  story(
    "before and after each step of a change leaves the client its interface, and the next Request changes it",
    (scene) => {
      const changes = new Changes(scene);
      return scene.eachStep(async (pod, kill) => {
        const client = scene.direct(pod);
        changes.forget(pod.name);
        await client.request(RETRY);
        changes.wish(pod.name);
        const isUnchanged = await kill((call) => client.request(call));
        assert.ok(await pod.pod.link("nsm-1"), "the client has lost its interface");
        const answer = isUnchanged ? await client.request(RETRY) : client.connection;
        const { mtu, up, mac, addresses, routes = [] } = (await pod.pod.link("nsm-1")) ?? {};
        assert.deepEqual(
          { mtu, up, mac, addresses, hasRoute: routes.some((route) => route.startsWith("10.21.")) },
          { ...changes.wished(pod.name), up: true, hasRoute: true },
        );
        assert.equal(await vlanOf(scene, answer), SANDBOX_VLAN + 1);
        await client.close(RETRY);
      });
    },
  );
});

/** The endpoint wishes for something else in everything that a connection has. */
class Changes {
  readonly #changed = new Set<string>();

  constructor({ sandbox: { endpoint } }: KillScene) {
    endpoint.want((connection) => {
      const name = clientOf(connection);
      if (!this.#changed.has(name)) return { ethernet: { srcMac: macOf(name, 1), vlanTag: SANDBOX_VLAN } };
      const { mac: srcMac, mtu } = this.wished(name);
      const ethernet = { srcMac, vlanTag: SANDBOX_VLAN + 1 };
      return { ethernet, mtu, srcRoutes: [{ prefix: "10.21.0.0/16" }] };
    });
    endpoint.knobs.alterReply = (reply) => {
      const { ipContext } = reply.context ?? {};
      if (ipContext && this.#changed.has(clientOf(reply)))
        ipContext.srcIpAddrs = this.wished(clientOf(reply)).addresses;
    };
  }

  wish(name: string): void {
    this.#changed.add(name);
  }

  forget(name: string): void {
    this.#changed.delete(name);
  }

  wished(name: string) {
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
  return assert.fail(`${address} is no function of ${pf}`);
}
