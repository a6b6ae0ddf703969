// An attack that no process beside can play, for the sandbox's endpoint is in ours: the forwarder's process lives, and other pods are served.
import { after, describe, test } from "node:test";
import { needs } from "../needs.ts";
import { AttackScene, deadDescriptor } from "./scenes/attack-scene.ts";
import { SharedUntilFailure } from "./scenes/fresh-after-failure.ts";

const shared = new SharedUntilFailure(
  () => AttackScene.open(),
  (scene) => scene.stop(),
);

describe("the forwarder's process lives and serves others when", () => {
  after(() => shared.close());

  test("an endpoint that we call passes a descriptor that cannot be read", async (t) => {
    if (!needs(t, "netns", "veth", "bridge")) return;
    await shared.run(async (scene) => {
      const dead = await deadDescriptor();
      const { knobs } = scene.sandbox.endpoint;
      knobs.fds = [dead];
      try {
        await scene.serves();
      } finally {
        knobs.fds = [];
        dead.close();
      }
      await scene.serves();
    });
  });
});
