// VFs of the journal whose physical function the forwarder does not see at its start, but later.
import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { SANDBOX_RESOURCE, Sandbox } from "../../sandbox/sandbox.ts";
import { systemClock } from "../../src/async/index.ts";
import type { Forwarder } from "../../src/forwarder.ts";
import { recordingLog } from "../../src/telemetry/recording-log.ts";
import { needs } from "../needs.ts";
import { eventually } from "./scenes/story.ts";

const SIBLING = "worker.domain/intel";

/** A node with one client, whose forwarder has been stopped. */
async function stoppedNode(t: TestContext) {
  const log = recordingLog();
  const machine = { vfsPerPf: 2, realLinks: true };
  const sandbox = await Sandbox.start({ machine, log, clock: systemClock });
  t.after(() => sandbox.stop());
  const forwarder = await sandbox.startForwarder();
  await sandbox.kubelet.until(SANDBOX_RESOURCE, (devices) => devices.length === 4);
  const pod = await sandbox.startPod("client-1");
  const { mechanism } = await pod.client.request();
  const address = mechanism?.parameters["pciAddress"] ?? "";
  const { pf = "" } = vfOf(forwarder, address) ?? {};
  const link = await pod.pod.link("nsm-1");
  assert.equal(link?.up, true);
  await sandbox.stopForwarder();
  return { sandbox, log, pod, address, pf, link };
}

function vfOf({ node }: Forwarder, address: string) {
  return node.inventory.snapshot().find((vf) => vf.address === address);
}

function siblings({ kubelet }: Sandbox): number {
  return (kubelet.devices.value?.get(SIBLING) ?? []).filter((one) => one.healthy).length;
}

/** What must be so when the forwarder has seen the VF of the client again. */
async function isTakenUp({ sandbox, pod, address, link }: Awaited<ReturnType<typeof stoppedNode>>, now: Forwarder) {
  await eventually(
    () => vfOf(now, address)?.state,
    (state) => state === "ready",
  );
  assert.deepEqual(await pod.pod.link("nsm-1"), link, "the client was not touched");
  await eventually(
    () => siblings(sandbox),
    (count) => count === 3,
  );
  const again = await pod.client.request();
  assert.equal(again.mechanism?.parameters["pciAddress"], address);
  assert.deepEqual(await pod.pod.link("nsm-1"), link);
  await pod.client.close();
  assert.deepEqual(await pod.pod.links(), []);
}

test("a client of a physical function that gets its driver after our start is still served", async (t) => {
  if (!needs(t, "netns", "veth", "bridge")) return;
  const node = await stoppedNode(t);
  const { sandbox, log, pf, address } = node;
  await sandbox.machine.drivers.writeText("igb/unbind", pf);
  const forwarder = await sandbox.startForwarder();
  assert.equal(vfOf(forwarder, address), undefined);
  assert.ok(log.events.some(({ event, fields }) => event === "vf-of-journal-absent" && fields?.["vf"] === address));
  await sandbox.machine.drivers.writeText("igb/bind", pf);
  await isTakenUp(node, forwarder);
});

test("a client of a physical function that returns to the configuration is still served", async (t) => {
  if (!needs(t, "netns", "veth", "bridge")) return;
  const node = await stoppedNode(t);
  const { sandbox, pf, address } = node;
  const whole = sandbox.pfConfigFile.text;
  const [head = "", ...blocks] = whole.split(/(?=^ {2}0000:)/m);
  sandbox.pfConfigFile.write(head + blocks.filter((block) => !block.includes(pf)).join(""));
  const forwarder = await sandbox.startForwarder();
  assert.equal(vfOf(forwarder, address), undefined);
  await eventually(
    () => siblings(sandbox),
    (count) => count === 1, // whether the pod of the token has requested its VF yet is not known
  );
  sandbox.pfConfigFile.write(whole);
  await isTakenUp(node, forwarder);
});

test("a VF that was made again while no forwarder served belongs to no client, and is clean", async (t) => {
  if (!needs(t, "netns", "veth", "bridge")) return;
  const { sandbox, pod, pf, address } = await stoppedNode(t);
  const putBack = await sandbox.machine.removePf(pf);
  const forwarder = await sandbox.startForwarder();
  assert.equal(vfOf(forwarder, address), undefined);
  await putBack();
  await eventually(
    () => forwarder.node.inventory.snapshot().map(({ state, problem }) => [state, problem]),
    (all) => all.length === 4 && all.every(([state, problem]) => state !== "quarantined" && problem === undefined),
  );
  await eventually(
    () => forwarder.nsm.connectionCount,
    (count) => count === 0,
  );
  await pod.client.request();
  assert.equal((await pod.pod.link("nsm-1"))?.up, true);
  await pod.client.close();
});
