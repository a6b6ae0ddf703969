// Attacks on the forwarder's process, as it runs in production: it lives, and other pods are served.
import assert from "node:assert/strict";
import { once } from "node:events";
import { after, describe, test } from "node:test";
import { connectUnix } from "../../src/kernel/index.ts";
import { needs } from "../needs.ts";
import { AttackScene, deadDescriptor } from "./attack-scene.ts";

let opening: Promise<AttackScene> | undefined;

function attack(name: string, run: (scene: AttackScene) => Promise<void>): void {
  test(name, { timeout: 120_000 }, async (t) => {
    if (!needs(t, "netns", "veth", "bridge")) return;
    opening ??= AttackScene.open();
    const scene = await opening;
    await run(scene);
    await scene.serves();
  });
}

describe("the forwarder's process lives and serves others when", () => {
  after(async () => (await opening)?.stop());

  attack("somebody without an identity passes a descriptor at which nobody can look", async (scene) => {
    const dead = await deadDescriptor();
    try {
      assert.throws(() => dead.id(), { code: "ENOENT" });
      const stream = connectUnix(scene.path);
      stream.on("error", () => {});
      stream.fds.send(dead);
      stream.write("x");
      await scene.serves();
      stream.destroy();
      await once(stream, "close");
    } finally {
      dead.close();
    }
  });

  attack("an endpoint that we call passes such a descriptor", async (scene) => {
    const dead = await deadDescriptor();
    const { knobs } = scene.sandbox.endpoint;
    knobs.fds = [dead];
    try {
      await scene.serves();
    } finally {
      knobs.fds = [];
      dead.close();
    }
  });
});
