// An upgrade is not a new node: each instance of the forwarder is a pod of another name and another SPIFFE ID, the manager behaves as the
// SDK's, and no pod notices. UPGRADES=100 upgrades as often in the stories that count. VFIO: upgrade-vfio.test.ts.
import assert from "node:assert/strict";
import { after, describe, test } from "node:test";
import { needs } from "../needs.ts";
import { SharedUntilFailure } from "./scenes/fresh-after-failure.ts";
import { LINKS } from "./scenes/story.ts";
import { heal, reselect, segmentIn, UpgradeScene } from "./scenes/upgrade-scene.ts";

const UPGRADES = Number(process.env["UPGRADES"] ?? 3);

/** Those alone, and of that client alone. */
async function givesOtherAddresses(scene: UpgradeScene): Promise<void> {
  const { knobs } = scene.sandbox.endpoint;
  const beside = await scene.kernelPod("beside");
  const { client, pod, end } = await scene.silentPod("changing");
  const before = await pod.link("nsm-1");
  const given = ["172.16.1.77/32", "2001:db8::77/128"];
  // The kernel itself has a route to an address of IPv6.
  const routes = before?.routes.map((route) => (before.addresses.includes(route) ? "2001:db8::77/128" : route)).sort();
  const expected = { ...before, addresses: given, routes };
  knobs.alterReply = ({ path, context }) => {
    if (path?.pathSegments[0]?.name === "changing") Object.assign(context?.ipContext ?? {}, { srcIpAddrs: given });
  };
  await scene.upgrade("SIGTERM");
  await Promise.all([heal(client), heal(beside.client)]);
  assert.deepEqual(await pod.link("nsm-1"), expected);
  const own = await scene.changed();
  assert.deepEqual([...new Set(own.map((line) => line.replace(/: .*/, "")))].sort(), [
    "changing",
    "rtnetlink addAddress",
    "rtnetlink deleteAddress",
  ]);
  knobs.alterReply = undefined;
  await Promise.all([end(), beside.end()]);
}

describe("a forwarder that is upgraded", () => {
  const shared = new SharedUntilFailure(
    () => UpgradeScene.open(),
    (scene) => scene.stop(),
  );
  after(() => shared.close());

  function story(name: string, wants: typeof LINKS, play: (scene: UpgradeScene) => Promise<void>): void {
    test(name, async (t) => {
      if (needs(t, ...wants)) await shared.run((scene) => scene.played(() => play(scene)));
    });
  }

  story("by SIGTERM is found by its earlier name at once, and writes nothing", LINKS, async (scene) => {
    const { client, pod, end } = await scene.kernelPod("kernel");
    const [first, before] = [segmentIn(client), await pod.link("nsm-1")];
    for (let nth = 0; nth < UPGRADES; nth += 1) {
      await scene.upgrade("SIGTERM");
      await heal(client);
      assert.equal(segmentIn(client), first);
      assert.deepEqual(await scene.changed(), []);
      await client.request();
    }
    assert.deepEqual(await pod.link("nsm-1"), before);
    await end();
  });

  story("by SIGKILL is found when the manager's time is up, by its name of today", LINKS, async (scene) => {
    const { client, pod, end } = await scene.kernelPod("killed-kernel");
    const before = await pod.link("nsm-1");
    for (let nth = 0; nth < UPGRADES; nth += 1) {
      const [name, id] = segmentIn(client).split(" ");
      await scene.upgrade("SIGKILL");
      await assert.rejects(client.request(), /all forwarders have failed/);
      scene.sandbox.nsmgr.registry.removeEndpoint(name ?? ""); // it expires; no other may have its name
      await assert.rejects(client.request(), { message: new RegExp(`forwarder ${name} is not available`) });
      await scene.sandbox.nsmgr.timeUp();
      await heal(client);
      assert.equal(segmentIn(client), `${scene.name} ${id}`);
      assert.deepEqual(await scene.changed(), []);
      await client.request();
    }
    assert.deepEqual(await pod.link("nsm-1"), before);
    await end();
  });

  const other = "gives a client the other addresses that its endpoint answers since, and touches nothing else";
  story(other, LINKS, givesOtherAddresses);

  for (const by of ["SIGTERM", "SIGKILL"] as const) {
    story(
      `by ${by} is reselected by a client that does not check its data plane, and writes nothing`,
      LINKS,
      async (scene) => {
        const { client, pod, end } = await scene.kernelPod(`reselects-${by}`);
        const before = await pod.link("nsm-1");
        // The client notices the end at once, and its Close reaches no forwarder.
        const [, id] = segmentIn(client).split(" ");
        await scene.upgrade(by, () => client.sendClose(client.proposal().connection ?? {}).catch(() => {}));
        await reselect(client);
        assert.equal(segmentIn(client).split(" ")[1], id);
        assert.deepEqual(await scene.changed(), []);
        assert.deepEqual(await pod.link("nsm-1"), before);
        await client.request();
        await end();
      },
    );
  }
});
