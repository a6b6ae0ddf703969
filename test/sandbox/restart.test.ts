// The forwarder dies at every step that it takes, and the next one finds the node as the dead one left it.
import assert from "node:assert/strict";
import { after, describe, test } from "node:test";
import { SANDBOX_VLAN } from "../../sandbox/sandbox.ts";
import { needs } from "../needs.ts";
import { CrashScene } from "./crash-scene.ts";

let opening: Promise<CrashScene> | undefined;

function story(name: string, tell: (crash: CrashScene) => Promise<unknown>): void {
  test(name, { timeout: 120_000 }, async (t) => {
    if (!needs(t, "netns", "veth", "bridge")) return;
    opening ??= CrashScene.open();
    const steps = await tell(await opening);
    if (typeof steps !== "number") return;
    t.diagnostic(`died at each of ${steps} steps`);
    assert.ok(steps > 5, "too few steps were seen: the interception does not work");
  });
}

describe("a forwarder that dies", () => {
  after(async () => {
    const pings = await (await opening)?.stop();
    if (pings) assert.deepEqual(pings, { ...pings, lost: 0 });
  });

  story("at any step of a Request leaves nothing behind, and the client's next Request works", (crash) =>
    crash.eachStep(async ({ client, pod }, crashAt) => {
      if (await crashAt((signal) => client.request({ signal }))) await client.request({ timeoutMs: 5000 });
      assert.equal((await pod.link("nsm-1"))?.up, true);
      await client.close({ timeoutMs: 5000 });
    }),
  );

  story("at any step of a Request that binds a driver leaves nothing behind either", (crash) =>
    crash.eachStep(async ({ client, pod, tokenId }, crashAt) => {
      const { inventory } = crash.scene.forwarder.node;
      const vf = inventory.snapshot().find((one) => one.tokenId === tokenId);
      await crash.scene.sandbox.machine.drivers.writeText("igbvf/unbind", vf?.address ?? "");
      await crash.scene.sandbox.machine.devices.writeText(`${vf?.address}/driver_override`, "vfio-pci");
      if (vf) inventory.setDriver(vf.address, undefined);
      if (await crashAt((signal) => client.request({ signal }))) await client.request({ timeoutMs: 5000 });
      assert.equal((await pod.link("nsm-1"))?.up, true);
      await client.close({ timeoutMs: 5000 });
    }, "ended"),
  );

  story("at any step of a Close is closed again, or asked for again, as if nothing had been", (crash) =>
    crash.eachStep(async ({ client, pod }, crashAt, step) => {
      await client.request();
      const hasCrashed = await crashAt((signal) => client.close({ signal }));
      if (hasCrashed && step % 2 === 0) {
        await client.request({ timeoutMs: 5000 });
        assert.equal((await pod.link("nsm-1"))?.up, true);
      }
      if (hasCrashed) await client.close({ timeoutMs: 5000 });
    }),
  );

  story("at any step of a change leaves the client its interface, and the next Request brings the change", (crash) =>
    crash.eachStep(async ({ client, pod }, crashAt) => {
      const { endpoint } = crash.scene.sandbox;
      const wish = { ethernet: { srcMac: "0a:55:44:33:22:aa", vlanTag: SANDBOX_VLAN } };
      endpoint.want({ ...wish, srcRoutes: [{ prefix: "10.20.0.0/16" }] });
      await client.request();
      endpoint.want({ ...wish, srcRoutes: [{ prefix: "10.21.0.0/16" }], mtu: 1400 });
      const hasCrashed = await crashAt((signal) => client.request({ signal }));
      assert.ok((await pod.link("nsm-1")) !== undefined);
      if (hasCrashed) await client.request({ timeoutMs: 5000 });
      const { mtu, up, routes } = (await pod.link("nsm-1")) ?? {};
      const changed = routes?.filter((route) => route.startsWith("10."));
      assert.deepEqual({ mtu, up, changed }, { mtu: 1400, up: true, changed: ["10.21.0.0/16 via 172.16.1.0"] });
      await client.close({ timeoutMs: 5000 });
    }),
  );

  story("gets back the function of a pod that ended meanwhile", async (crash) => {
    const before = await crash.scene.dump();
    const pod = await crash.scene.pod();
    const client = crash.scene.direct(pod); // the sandbox's manager would keep a descriptor of the namespace
    await client.request();
    await crash.restart(() => crash.endPod(pod, client));
    await crash.told(
      () => "pod ended while nobody served",
      () => crash.isAsBefore(before, "ended"),
    );
  });

  story("gets back the function of a pod that ends before its client has come back", async (crash) => {
    const before = await crash.scene.dump();
    const pod = await crash.scene.pod();
    const client = crash.scene.direct(pod); // the sandbox's manager would keep a descriptor of the namespace
    await client.request();
    await crash.restart();
    await crash.endPod(pod, client);
    await crash.told(
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
    assert.ok(await pod.pod.link("nsm-1"), "nobody can take it out of a namespace that nobody has shown");
    await crash.endPod(pod, client);
    await crash.told(
      () => "pod ended after its Close",
      () => crash.isAsBefore(before, "ended"),
    );
  });
});
