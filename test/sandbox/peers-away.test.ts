// Pods get their devices while other peers are away: an agent that hands out no identity, a manager that does not answer.
import assert from "node:assert/strict";
import { test } from "node:test";
import { SANDBOX_RESOURCE, Sandbox } from "../../sandbox/sandbox.ts";
import { systemClock as clock } from "../../src/async/index.ts";
import { silentLog as log } from "../../src/telemetry/index.ts";
import { needs } from "../needs.ts";

const VFS = 4;

test("kubelet has all devices and pods get them while SPIRE and NSMgr are away; then a pod that has one is served", async (t) => {
  if (!needs(t, "netns", "veth", "bridge")) return;
  const sandbox = await Sandbox.start({ machine: { realLinks: true, vfsPerPf: VFS / 2 }, log, clock });
  t.after(() => sandbox.stop());
  await sandbox.workload.stop();
  await sandbox.nsmgr.stop();
  const starting = sandbox.startForwarder();
  await Promise.race([
    sandbox.kubelet.until(SANDBOX_RESOURCE, (all) => all.length === VFS && all.every(({ healthy }) => healthy)),
    starting.then(() => assert.fail("it has started without an identity")),
  ]);
  const pod = await sandbox.startPod("early");
  await sandbox.workload.start();
  await sandbox.nsmgr.start();
  await starting;
  await pod.client.request();
  assert.equal((await pod.pod.link("nsm-1"))?.up, true);
  await pod.client.close();
});
