// Inventory, journal and node are made to differ behind the forwarder's back; it has to notice and to repair it, or to quarantine it.
import assert from "node:assert/strict";
import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { type TestContext, test } from "node:test";
import { SANDBOX_RESOURCE, Sandbox, type SandboxPod } from "../../sandbox/sandbox.ts";
import { systemClock } from "../../src/async/index.ts";
import type { Forwarder } from "../../src/forwarder.ts";
import { Netns } from "../../src/kernel/index.ts";
import { createMetrics } from "../../src/telemetry/index.ts";
import { recordingLog } from "../../src/telemetry/recording-log.ts";
import { needs } from "../needs.ts";
import { ip } from "./scenes/ip.ts";
import { eventually } from "./scenes/story.ts";

const INTERVAL_MS = 50;
/** Of a client whose namespace no other process keeps open: the sandbox's manager would. */
const POD = "client-1";

async function startNode(t: TestContext, { reconcileIntervalMs = INTERVAL_MS, pfs = 2, vfsPerPf = 2 } = {}) {
  const log = recordingLog();
  const sandbox = await Sandbox.start({
    machine: { pfs, vfsPerPf, realLinks: true },
    settings: { reconcileIntervalMs },
    metrics: createMetrics(),
    log,
    clock: systemClock,
  });
  t.after(() => sandbox.stop());
  const forwarder = await sandbox.startForwarder();
  await sandbox.kubelet.until(SANDBOX_RESOURCE, (devices) => devices.length === pfs * vfsPerPf);
  return { sandbox, forwarder, log };
}

/** A node with one client, whose forwarder has been stopped, and how its VF was before and is now. */
async function stoppedNode(t: TestContext) {
  const { sandbox, forwarder, log } = await startNode(t);
  const before = await observe(sandbox);
  const pod = await sandbox.startPod(POD);
  const client = sandbox.directClient(POD, {
    manager: { name: sandbox.nsmgr.name, actor: sandbox.actor("nsmgr") },
    netns: pod.pod.netns,
    parameters: { name: "nsm-1", tokenID: pod.tokenId },
  });
  const { mechanism } = await client.request();
  const address = mechanism?.parameters["pciAddress"] ?? "";
  const { pf = "", index = 0 } = vfOf(forwarder, address) ?? {};
  await client.hangUp();
  await sandbox.stopForwarder();
  return { sandbox, log, pod, address, pf, index, before };
}

/** Names of the host's links, and the settings of each VF. */
async function observe({ machine }: Sandbox) {
  const rows = (await machine.print()).split("\n").slice(1);
  return rows.map((row) => row.trim().split(/ {2,}/).slice(0, 6));
}

function vfOf({ node }: Forwarder, address: string) {
  return node.inventory.snapshot().find((vf) => vf.address === address);
}

/** Waits until the VF is in that state and healthy, or not. */
async function becomes(forwarder: Forwarder, address: string, state: string): Promise<void> {
  await eventually(
    () => vfOf(forwarder, address),
    (vf) => vf?.state === state,
  );
}

async function repaired({ metrics }: Sandbox, kind: string): Promise<number> {
  const line = new RegExp(`^nsm_sriov_repairs_total\\{kind="${kind}"\\} (\\d+)$`, "m");
  return Number(line.exec((await metrics?.text()) ?? "")?.[1] ?? 0);
}

async function endPod(sandbox: Sandbox, { pod, name }: SandboxPod): Promise<void> {
  sandbox.kubelet.free(name);
  pod.close();
}

test("a VF in a namespace that no journal names is quarantined, and clean when it returns", async (t) => {
  if (!needs(t, "netns", "veth", "bridge")) return;
  const { sandbox, pod, address, pf, index } = await stoppedNode(t);
  rmSync(`${sandbox.folder}/state/journal`);
  const forwarder = await sandbox.startForwarder();
  assert.equal(vfOf(forwarder, address)?.state, "quarantined");
  await endPod(sandbox, pod);
  await eventually(
    () => vfOf(forwarder, address)?.problem,
    (problem) => problem === undefined,
  );
  const port = sandbox.machine.pfPort({ address: pf });
  const { mac, vlan } = await port.read(index);
  const ifname = forwarder.node.survey.pfs.get(pf as never)?.ifname;
  const here = await sandbox.machine.devices.list(`${address}/net`);
  // What igb names of a VF that is free to choose its address: what that has.
  const links = sandbox.machine.openRtnl(sandbox.machine.netns);
  const own = (await links.linkByName(`${ifname}v${index}`))?.address;
  links.close();
  assert.deepEqual({ mac, vlan, here }, { mac: own, vlan: 0, here: [`${ifname}v${index}`] });
  assert.equal(await repaired(sandbox, "clean"), 1);
});

test("a VF that is quarantined for want of its device is cleaned by the next forwarder, too, that finds the device in the host", async (t) => {
  if (!needs(t, "netns", "veth", "bridge")) return;
  const { sandbox, pod, address, pf, index } = await stoppedNode(t);
  rmSync(`${sandbox.folder}/state/journal`);
  const forwarder = await sandbox.startForwarder();
  assert.equal(vfOf(forwarder, address)?.state, "quarantined");
  await sandbox.stopForwarder();
  await endPod(sandbox, pod);
  await eventually(
    () => sandbox.machine.devices.list(`${address}/net`),
    (names) => names.length === 1,
  );
  const again = await sandbox.startForwarder();
  await eventually(
    () => vfOf(again, address)?.problem,
    (problem) => problem === undefined,
  );
  const ifname = again.node.survey.pfs.get(pf as never)?.ifname;
  const { vlan } = await sandbox.machine.pfPort({ address: pf }).read(index);
  assert.deepEqual([await sandbox.machine.devices.list(`${address}/net`), vlan], [[`${ifname}v${index}`], 0]);
});

test("a VF that an operator has unbound from under its client is bound, restored and free again", async (t) => {
  if (!needs(t, "netns", "veth", "bridge")) return;
  const { sandbox, pod, address, before } = await stoppedNode(t);
  await sandbox.machine.drivers.writeText("igbvf/unbind", address);
  const forwarder = await sandbox.startForwarder();
  sandbox.kubelet.free(pod.name);
  await eventually(
    () => vfOf(forwarder, address)?.problem,
    (problem) => problem === undefined,
  );
  assert.deepEqual([await repaired(sandbox, "rebind"), await repaired(sandbox, "restore")], [1, 1]);
  assert.deepEqual(withoutMac(await observe(sandbox)), withoutMac(before));
  const text = readFileSync(`${sandbox.folder}/state/journal`, "utf8");
  await sandbox.stopForwarder();
  assert.ok(text.includes(address));
  const again = await sandbox.startForwarder();
  assert.deepEqual([again.nsm.connectionCount, vfOf(again, address)?.problem], [0, undefined]);
});

test("a free VF that an operator takes away is quarantined, and free again when it is back", async (t) => {
  if (!needs(t, "netns", "veth", "bridge")) return;
  const { sandbox, forwarder } = await startNode(t);
  const { address = "" } = forwarder.node.inventory.snapshot()[0] ?? {};
  const [name = ""] = await sandbox.machine.devices.list(`${address}/net`);
  const elsewhere = Netns.create();
  t.after(() => elsewhere.close());
  await ip(sandbox.machine.netns, `link set dev ${name} netns /proc/${process.pid}/fd/${elsewhere.fd.number}`);
  await becomes(forwarder, address, "quarantined");
  await ip(elsewhere, `link set dev ${name} netns /proc/${process.pid}/fd/${sandbox.machine.netns.fd.number}`);
  await becomes(forwarder, address, "idle");
  assert.deepEqual([await repaired(sandbox, "quarantine"), await repaired(sandbox, "clean")], [1, 1]);
});

test("what a late write leaves on a VF that was restored is removed", async (t) => {
  if (!needs(t, "netns", "veth", "bridge")) return;
  const { sandbox, forwarder, log } = await startNode(t);
  const pod = await sandbox.startPod(POD);
  const { mechanism } = await pod.client.request();
  const address = mechanism?.parameters["pciAddress"] ?? "";
  const { pf = "", index = 0 } = vfOf(forwarder, address) ?? {};
  await pod.client.close();
  await becomes(forwarder, address, "reserved");
  const port = sandbox.machine.pfPort({ address: pf });
  const before = await port.read(index);
  await port.write(index, { vlan: 77 });
  await eventually(
    async () => [await port.read(index), vfOf(forwarder, address)?.problem],
    ([now, problem]) => problem === undefined && JSON.stringify(now) === JSON.stringify(before),
  );
  assert.equal(await repaired(sandbox, "restore"), 1);
  assert.deepEqual(log.of("vf-not-repaired"), []);
});

test("a VF whose name the host has given to another link has it again when that lets go of it, after a restart and another client, too", async (t) => {
  if (!needs(t, "netns", "veth", "bridge")) return;
  // What is so at once, the kernel has said.
  const { sandbox, forwarder } = await startNode(t, { reconcileIntervalMs: 3_600_000, pfs: 1, vfsPerPf: 1 });
  const { devices, netns: host } = sandbox.machine;
  const address = forwarder.node.inventory.snapshot()[0]?.address ?? assert.fail();
  const nameNow = async () => (await devices.list(`${address}/net`).catch(() => []))[0];
  const own = (await nameNow()) ?? assert.fail();
  await ip(host, `link set ${own} txqueuelen 555`);
  const { client, pod } = await sandbox.startPod(POD);
  const qlenOfTenant = async () => {
    await client.request();
    return /qlen \d+/.exec(await ip(pod.netns, "link show dev nsm-1"))?.[0];
  };
  assert.equal(await qlenOfTenant(), "qlen 555");
  const isUnderOther = (running: Forwarder) =>
    eventually(
      async () =>
        [
          await nameNow(),
          vfOf(running, address)
            ?.conditions.map(({ code }) => code)
            .join(),
        ] as const,
      ([now, codes]) =>
        now === `vf${address.replaceAll(/[:.]/g, "-")}` && /^not-as-before,name-taken/.test(codes ?? ""),
    );
  await ip(host, `link add ${own} type bridge`);
  await client.close();
  await isUnderOther(forwarder);
  await sandbox.stopForwarder();
  const again = await sandbox.startForwarder();
  await isUnderOther(again);
  assert.equal(await qlenOfTenant(), "qlen 555");
  await client.close();
  await isUnderOther(again);
  await ip(host, `link set ${own} name br7`);
  await eventually(nameNow, (now) => now === own);
  assert.match(await ip(host, `link show dev ${own}`), /qlen 555/);
});

test("the entry of a VF that is gone for good is forgotten, and its connection", async (t) => {
  if (!needs(t, "netns", "veth", "bridge")) return;
  const { sandbox, log, pf, address } = await stoppedNode(t);
  await sandbox.machine.removePf(pf);
  const forwarder = await sandbox.startForwarder();
  await eventually(
    () => repaired(sandbox, "forget"),
    (count) => count === 1,
  );
  assert.equal(forwarder.nsm.connectionCount, 0);
  await sandbox.stopForwarder();
  const reported = log.of("vf-of-journal-absent").length;
  assert.equal(reported, 1);
  await sandbox.startForwarder();
  const forgotten = log.of("vf-repaired").filter(({ repair }) => repair === "forget");
  assert.deepEqual([log.of("vf-of-journal-absent").length, forgotten.map(({ vf }) => vf)], [reported, [address]]);
});

test("a lost IOMMU group makes its VF unhealthy, though no event reports it", async (t) => {
  if (!needs(t, "netns", "veth", "bridge")) return;
  const { sandbox, forwarder } = await startNode(t);
  const { address = "" } = forwarder.node.inventory.snapshot()[0] ?? {};
  sandbox.machine.loseGroup(address);
  await sandbox.kubelet.until(SANDBOX_RESOURCE, (devices) => devices.filter((one) => !one.healthy).length === 1);
  assert.match(vfOf(forwarder, address)?.problem ?? "", /lost its IOMMU group/);
});

test("a running client is looked at, and nothing of it is touched", async (t) => {
  if (!needs(t, "netns", "veth", "bridge")) return;
  const { sandbox, forwarder } = await startNode(t);
  const pod = await sandbox.startPod(POD);
  const { mechanism } = await pod.client.request();
  const address = mechanism?.parameters["pciAddress"] ?? "";
  const link = await pod.pod.link("nsm-1");
  sandbox.changes.forget();
  writeFileSync(`${sandbox.folder}/state/unrelated`, "");
  const observations = async () => {
    const readings = (await sandbox.metrics?.read()) ?? [];
    const { samples = [] } = readings.find(({ name }) => name === "nsm_sriov_reconcile_seconds") ?? {};
    return samples.map(({ value }) => value).join();
  };
  for (let times = 0; times < 5; times += 1) {
    const before = await observations();
    await eventually(observations, (now) => now !== before);
  }
  assert.deepEqual([sandbox.changes.seen, await pod.pod.link("nsm-1")], [[], link]);
  assert.equal(vfOf(forwarder, address)?.state, "ready");
  const all = await sandbox.metrics?.text();
  assert.match(all ?? "", /nsm_sriov_repairs_total/);
  assert.doesNotMatch(all ?? "", /nsm_sriov_repairs_(failed_)?total\{[^}]*\} [1-9]/);
});

/** What is made again with a driver has another address. */
function withoutMac(rows: readonly (readonly string[])[]) {
  return rows.map((row) => row.filter((_, column) => column !== 4));
}
