// The forwarder dies, and pods end before the next one has met them. Deaths in the middle of a call: killed.test.ts.
import assert from "node:assert/strict";
import { after, describe, test } from "node:test";
import { needs } from "../needs.ts";
import { CrashScene } from "./scenes/crash-scene.ts";

const shared = CrashScene.shared();

function story(name: string, tell: (crash: CrashScene) => Promise<void>): void {
  test(name, async (t) => {
    if (!needs(t, "netns", "veth", "bridge")) return;
    await shared.run(tell);
  });
}

describe("a forwarder that dies", () => {
  after(() => shared.close());

  story("gets back the VF of a pod that ended meanwhile", async (crash) => {
    const before = await crash.scene.dump();
    const pod = await crash.scene.pod();
    const client = crash.scene.direct(pod); // the sandbox's manager would keep a descriptor of the namespace
    await client.request();
    await crash.restart(() => crash.endPod(pod, client));
    await crash.checks(
      () => "pod ended while no forwarder served",
      () => crash.isAsBefore(before, "ended"),
    );
  });

  story("gets back the VF of a pod that ends before its client has come back", async (crash) => {
    const before = await crash.scene.dump();
    const pod = await crash.scene.pod();
    const client = crash.scene.direct(pod); // the sandbox's manager would keep a descriptor of the namespace
    await client.request();
    await crash.restart();
    await crash.endPod(pod, client);
    await crash.checks(
      () => "pod ended before its refresh",
      () => crash.isAsBefore(before, "ended"),
    );
  });

  story("closes for a manager that sends no namespace as soon as the pod has ended", async (crash) => {
    const before = await crash.scene.dump();
    const pod = await crash.scene.pod();
    const client = crash.scene.direct(pod); // the sandbox's manager would keep a descriptor of the namespace
    await client.request();
    await crash.restart();
    await assert.rejects(client.close({ fds: [] }));
    assert.ok(await pod.pod.link("nsm-1"), "it cannot be taken out of a namespace that was not passed");
    await crash.endPod(pod, client);
    await crash.checks(
      () => "pod ended after its Close",
      () => crash.isAsBefore(before, "ended"),
    );
  });
});
