// The forwarder dies, and pods end before the next one has met them. Deaths in the middle of a call: killed.test.ts.
import assert from "node:assert/strict";
import { after, describe, test } from "node:test";
import { needs } from "../needs.ts";
import { CrashScene } from "./scenes/crash-scene.ts";

const shared = CrashScene.shared();

function story(name: string, scenario: (crash: CrashScene) => Promise<void>): void {
  test(name, async (t) => {
    if (!needs(t, "netns", "veth", "bridge")) return;
    await shared.run(scenario);
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

  story("closes for a manager that sends no namespace, though the pod lives on", async (crash) => {
    const before = await crash.scene.dump();
    const pod = await crash.scene.pod();
    const client = crash.scene.direct(pod); // the sandbox's manager would keep a descriptor of the namespace
    await client.request();
    await crash.restart();
    await client.close({ fds: [] });
    await crash.checks(
      () => "closed without its namespace",
      () => crash.isAsBefore(before),
    );
    assert.deepEqual(await pod.pod.links(), [], "the driver has taken it away, out of a namespace that was not passed");
  });
});
