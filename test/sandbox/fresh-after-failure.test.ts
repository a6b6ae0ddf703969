// A test that fails says so once: what it left behind is not the next one's.
import assert from "node:assert/strict";
import { after, describe, type TestContext, test } from "node:test";
import { commonStandIns } from "../../sandbox/nic/sysfs.ts";
import { PodCgroups } from "../../sandbox/pod/pod-cgroups.ts";
import { needs } from "../needs.ts";
import { SharedUntilFailure } from "./scenes/fresh-after-failure.ts";
import { LINKS, type Scene, type Story, sharedScene } from "./scenes/story.ts";
import { groupOf, nothingGranted, opening, VFIO_NEEDS, vfioPod } from "./scenes/vfio-scene.ts";

/** Only a fresh node, or one that was left as it was, passes. */
const untouched: Story = async (scene) => {
  assert.equal(scene.forwarder.nsm.connectionCount, 0);
  await scene.serves(await scene.pod());
};

const requestAndFail: Story = async (scene) => {
  await (await scene.pod()).client.request();
  assert.fail("on purpose");
};

const leaveAConnection: Story = async (scene) => {
  await (await scene.pod()).client.request();
};

describe("stories on one node", () => {
  const cgroups = PodCgroups.make();
  after(() => cgroups?.close());

  test("share it as long as they pass", async (t) => {
    if (!needs(t, ...LINKS)) return;
    const play = onOneNode(t);
    assert.equal(await play(untouched), await play(untouched));
  });

  for (const [says, story, problem] of [
    ["fails", requestAndFail, /on purpose/],
    ["leaves the node otherwise than it was", leaveAConnection, /Expected values to be strictly deep-equal/],
  ] as const) {
    test(`get a fresh one after a story that ${says}`, async (t) => {
      if (!needs(t, ...LINKS)) return;
      const play = onOneNode(t);
      await assert.rejects(play(story), problem);
      await play(untouched);
    });
  }

  test("get fresh cgroups with it: no rule is left of a pod that had VFIO", async (t) => {
    if (!needs(t, ...VFIO_NEEDS)) return;
    const play = onOneNode(t, { machine: { vfioStandIns: commonStandIns }, cgroups });
    const failing = play(async (scene) => {
      const pod = await vfioPod(scene);
      await pod.vfio.request();
      await pod.container.makeNodes(pod.vfio.connection ?? assert.fail());
      assert.deepEqual(await opening(pod.container, groupOf(pod.vfio)), ["", ""]);
      assert.fail("on purpose");
    });
    await assert.rejects(failing, /on purpose/);
    await play(async () => nothingGranted(cgroups ?? assert.fail()));
  });

  test("try again after a node that did not start", async () => {
    let opened = 0;
    const shared = new SharedUntilFailure(
      async () => {
        opened += 1;
        if (opened === 1) throw new Error("no node");
        return opened;
      },
      async () => {},
    );
    await assert.rejects(
      shared.run(async () => {}),
      /no node/,
    );
    assert.equal(await shared.run(async (node) => node), 2);
  });
});

/** Plays a story and resolves with its scene. */
function onOneNode(t: TestContext, options: Parameters<typeof sharedScene>[0] = {}): (story: Story) => Promise<Scene> {
  const shared = sharedScene(options);
  t.after(() => shared.close());
  return (story) =>
    shared.run(async (scene) => {
      await scene.play(story);
      return scene;
    });
}
