import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { SANDBOX_FORWARDER, SANDBOX_RESOURCE, Sandbox } from "../../sandbox/sandbox.ts";
import { systemClock } from "../../src/async/index.ts";
import { silentLog } from "../../src/telemetry/index.ts";
import { needs } from "../needs.ts";

test("the status page, health and metrics report a connection while it is established, and no secret", async (t) => {
  if (!needs(t, "netns", "veth", "bridge")) return;
  const sandbox = await Sandbox.start({ machine: { realLinks: true }, log: silentLog, clock: systemClock });
  t.after(() => sandbox.stop());
  const { adminUrl, node } = await sandbox.startForwarder();
  await sandbox.kubelet.until(SANDBOX_RESOURCE, (devices) => devices.length > 0);
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
  assert.match(metrics, /nsm_sriov_connections\{state="established"\} 1/);
  assert.match(metrics, /nsm_sriov_calls_seconds_count\{method="Request",code="OK"\} 1/);
  for (const line of [
    /^nsm_sriov_virtual_functions\{pf="0000:01:00.0",state="ready"\} 1$/m,
    /^nsm_sriov_physical_function_up\{pf="0000:02:00.0"\} 1$/m,
    /^nsm_sriov_tokens\{resource="worker.domain\/10G",state="allocated"\} 1$/m,
    /^nsm_sriov_tokens\{resource="worker.domain\/intel",state="unavailable"\} 1$/m,
    /^nsm_sriov_move_seconds_count\{to="client",outcome="ok"\} 1$/m,
    /^nsm_sriov_reconcile_seconds_count\{outcome="ok"\} [1-9]/m,
    /^nsm_sriov_connection_queue_length 0$/m,
    /^nsm_sriov_driver_queue_length 0$/m,
    /^nsm_sriov_ready 1$/m,
    /^nsm_sriov_info\{version="\d+\.\d+\.\d+"\} 1$/m,
  ]) {
    assert.match(metrics, line);
  }
  for (const step of ["prepare", "find-endpoints", "endpoint-request", "apply"]) {
    assert.match(metrics, new RegExp(`^nsm_sriov_step_seconds_count\\{step="${step}",outcome="ok"\\} 1$`, "m"));
  }
  const svidEnds = /^nsm_sriov_svid_expiry_timestamp_seconds (\S+)$/m.exec(metrics)?.[1];
  assert.ok(Number(svidEnds) * 1000 > Date.now());
  const secrets = [tokenId, ...(connection.path?.pathSegments ?? []).map((segment) => segment.token)];
  for (const secret of secrets) assert.ok(secret !== "" && !page.includes(secret) && !metrics.includes(secret));

  const documented = [...readFileSync("docs/operate.md", "utf8").matchAll(/^\| `(nsm_sriov_[a-z_]+)` \|/gm)];
  // Traces and the devices of VFIO are off here.
  const isOff = (name: string) => name === "nsm_sriov_spans_dropped_total" || name.startsWith("nsm_sriov_device_");
  const served = documented.map(([, name = ""]) => name).filter((name) => !isOff(name));
  assert.ok(served.length > 15);
  const kinds = [...metrics.matchAll(/^# TYPE (\w+) /gm)].map(([, name]) => name);
  assert.deepEqual(
    served.filter((name) => !kinds.includes(name)),
    [],
  );

  const idle = node.inventory.snapshot().find(({ state }) => state === "idle") ?? assert.fail("none is idle");
  node.inventory.raise(idle.address, { code: "write-stuck", error: "it is stuck" });
  const quarantined = (await read("/metrics")).text;
  for (const line of [
    `nsm_sriov_virtual_functions{pf="${idle.pf}",state="quarantined"} 1`,
    `nsm_sriov_virtual_functions_unhealthy{pf="${idle.pf}"} 1`,
  ]) {
    assert.ok(quarantined.split("\n").includes(line), line);
  }

  await client.close();
  const afterwards = (await read("/metrics")).text;
  assert.match(afterwards, /nsm_sriov_connections\{state="established"\} 0/);
  assert.match(afterwards, /^nsm_sriov_move_seconds_count\{to="host",outcome="ok"\} 1$/m);
});
