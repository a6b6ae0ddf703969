// An upgrade of the forwarder while a pod has its VFIO group open: upgrade.test.ts says how. UPGRADES=100 upgrades as often with version 1 of
// cgroups.
import assert from "node:assert/strict";
import { after, describe, test } from "node:test";
import { PodCgroups } from "../../sandbox/pod/pod-cgroups.ts";
import { type Need, needs } from "../needs.ts";
import { SharedUntilFailure } from "./scenes/fresh-after-failure.ts";
import { groupIn, heal, segmentIn, UpgradeScene } from "./scenes/upgrade-scene.ts";
import { opening, UNIFIED_NEEDS, unifiedCgroups, VFIO_NEEDS } from "./scenes/vfio-scene.ts";

const USUAL = 3;
const UPGRADES = Number(process.env["UPGRADES"] ?? USUAL);

async function keepsGroup(scene: UpgradeScene, by: "SIGTERM" | "SIGKILL", upgrades: number): Promise<void> {
  const { client, container, end } = await scene.vfioPod(`vfio-${by}`);
  const [first, group] = [segmentIn(client), groupIn(client.connection)];
  for (let nth = 0; nth < upgrades; nth += 1) {
    await scene.upgrade(by);
    if (by === "SIGKILL") {
      await assert.rejects(client.request());
      await scene.sandbox.nsmgr.timeUp();
    }
    await heal(client);
    if (by === "SIGTERM") assert.equal(segmentIn(client), first);
    assert.equal(groupIn(client.connection), group);
    assert.deepEqual(await scene.changed(), []);
    assert.deepEqual(await opening(container, group), ["", ""]);
    await client.request();
  }
  await end();
}

function upgrade(version: 1 | 2, cgroups: PodCgroups | undefined, wants: readonly Need[]): void {
  describe(`a forwarder that is upgraded, with version ${version} of cgroups,`, () => {
    const shared = new SharedUntilFailure(
      () => UpgradeScene.open(cgroups),
      (scene) => scene.stop(),
    );
    after(() => shared.close().finally(() => cgroups?.close()));
    for (const by of ["SIGTERM", "SIGKILL"] as const) {
      test(`by ${by} leaves a group open and what lets the pod open it in force, and writes nothing`, async (t) => {
        if (!needs(t, ...wants)) return;
        const upgrades = version === 1 ? UPGRADES : USUAL;
        await shared.run((scene) => scene.played(() => keepsGroup(scene, by, upgrades)));
      });
    }
  });
}

upgrade(1, PodCgroups.make(), VFIO_NEEDS);
upgrade(2, unifiedCgroups(), UNIFIED_NEEDS);
