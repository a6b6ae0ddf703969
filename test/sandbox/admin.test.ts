import assert from "node:assert/strict";
import { test } from "node:test";
import { SANDBOX_FORWARDER, SANDBOX_RESOURCE, Sandbox } from "../../sandbox/sandbox.ts";
import { systemClock } from "../../src/async/index.ts";
import { silentLog } from "../../src/telemetry/index.ts";
import { needs } from "../needs.ts";

test("the status page, health and metrics tell of a connection while it stands, and of no secret", async (t) => {
  if (!needs(t, "netns", "veth", "bridge")) return;
  const sandbox = await Sandbox.start({ machine: { realLinks: true }, log: silentLog, clock: systemClock });
  t.after(() => sandbox.stop());
  const { adminUrl } = await sandbox.startForwarder();
  await sandbox.kubelet.until(SANDBOX_RESOURCE, (devices) => devices.length > 0, AbortSignal.timeout(10_000));
  const read = async (path: string) => {
    const answer = await fetch(`${adminUrl}${path}`, { headers: { connection: "close" } });
    return { code: answer.status, text: await answer.text() };
  };
  const { client, tokenId } = await sandbox.startPod("client-1");
  const connection = await client.request();

  assert.equal((await read("/readyz")).code, 200);
  const page = (await read("/")).text;
  assert.match(page, new RegExp(SANDBOX_FORWARDER));
  assert.match(
    page,
    new RegExp(`${connection.mechanism?.parameters["pciAddress"]}</code></td>\n<td class="state">.* ready</td>`),
  );
  const metrics = (await read("/metrics")).text;
  assert.match(metrics, /nsm_sriov_connections\{state="standing"\} 1/);
  assert.match(metrics, /nsm_sriov_calls_seconds_count\{method="Request",code="OK"\} 1/);
  const secrets = [tokenId, ...(connection.path?.pathSegments ?? []).map((segment) => segment.token)];
  for (const secret of secrets) assert.ok(secret !== "" && !page.includes(secret) && !metrics.includes(secret));

  await client.close();
  assert.match((await read("/metrics")).text, /nsm_sriov_connections\{state="standing"\} 0/);
});
