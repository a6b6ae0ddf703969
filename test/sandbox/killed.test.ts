// The forwarder is a process of its own, and is killed with SIGKILL before and after every step of its that reaches the disk or
// the kernel: the next one finds the node as the dead one left it, sockets and descriptors too.
import assert from "node:assert/strict";
import { after, describe, test } from "node:test";
import { needs } from "../needs.ts";
import { KillScene } from "./kill-scene.ts";

let opening: Promise<KillScene> | undefined;

function story(name: string, tell: (scene: KillScene) => Promise<number>): void {
  test(name, { timeout: 600_000 }, async (t) => {
    if (!needs(t, "netns", "veth", "bridge")) return;
    opening ??= KillScene.open();
    const kills = await tell(await opening);
    t.diagnostic(`killed at each of ${kills} points`);
    assert.ok(kills > 10, "too few steps were seen: the interception does not work");
  });
}

describe("a forwarder that is killed", () => {
  after(async () => {
    const pings = await (await opening)?.stop();
    if (pings) assert.deepEqual(pings, { ...pings, lost: 0 });
  });

  story("before and after each step of a Request leaves nothing behind, and the next Request works", (scene) =>
    scene.eachStep(async (asking, kill) => {
      const { direct, pod } = asking;
      await scene.unbind(asking); // so that its steps are all that a Request can have
      if (await kill((signal) => direct.request({ signal }))) await direct.request({ timeoutMs: 5000 });
      assert.equal((await pod.link("nsm-1"))?.up, true);
      await direct.close({ timeoutMs: 5000 });
    }, "ended"),
  );

  story("before and after each step of a Close is closed again", (scene) =>
    scene.eachStep(async ({ direct }, kill) => {
      await direct.request({ timeoutMs: 5000 });
      if (await kill((signal) => direct.close({ signal }))) await direct.close({ timeoutMs: 5000 });
    }),
  );
});
