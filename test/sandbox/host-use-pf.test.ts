// Physical functions that the host uses itself: reported, set up at most, and given no virtual functions unless the list says so.
import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import type { MachineOptions } from "../../sandbox/machine/machine.ts";
import { SANDBOX_RESOURCE, Sandbox } from "../../sandbox/sandbox.ts";
import { systemClock } from "../../src/async/index.ts";
import type { Forwarder } from "../../src/forwarder.ts";
import { recordingLog } from "../../src/telemetry/recording-log.ts";
import { needs } from "../needs.ts";
import { IpMonitor, ip, ipDump } from "./scenes/ip.ts";
import { eventually } from "./scenes/story.ts";

const PF = "0000:01:00.0";
const NAME = "enp1s0f0";
/** As on a node whose only card it is. */
const uplink = [`address add 192.0.2.7/24 dev ${NAME}`, "route add default via 192.0.2.1"];
const USE = "enp1s0f0 has the IPv4 default route via 192.0.2.1, has address 192.0.2.7/24";

/** A node with one PF that is its uplink, before the forwarder has started. */
async function uplinkNode(t: TestContext, options: MachineOptions = {}) {
  const log = recordingLog();
  const machine = { pfs: 1, vfsPerPf: 2, realLinks: true, ...options };
  const sandbox = await Sandbox.start({ log, clock: systemClock, machine });
  t.after(() => sandbox.stop());
  for (const command of uplink) await ip(sandbox.machine.netns, command);
  return { sandbox, log };
}

const numVfs = ({ machine }: Sandbox) => machine.devices.readText(`${PF}/sriov_numvfs`);

const offered = ({ kubelet }: Sandbox, count: number) =>
  kubelet.until(SANDBOX_RESOURCE, (devices) => devices.filter(({ healthy }) => healthy).length === count);

const isLogged = ({ health }: Forwarder, sentence: RegExp) =>
  eventually(
    () => health.conditions().map(({ code, subject, sentence: said }) => [code, subject, said].join(" ")),
    (all) => all.length === 1 && sentence.test(all[0] ?? ""),
  );

test("no VFs are made on a PF that the host uses, until the host lets go of it", async (t) => {
  if (!needs(t, "netns", "veth", "bridge")) return;
  const { sandbox, log } = await uplinkNode(t, { numVfs: 0 });
  const before = await ipDump(sandbox.machine.netns);
  const forwarder = await sandbox.startForwarder();
  const why = new RegExp(
    `pf-without-vfs ${PF} .*none are made on it, for the host uses it: ${USE}; make them .*echo 2 > \\S+/sriov_numvfs\\), or set hostUse: create-vfs`,
  );
  await isLogged(forwarder, why);
  assert.equal(await numVfs(sandbox), "0");
  assert.deepEqual(await ipDump(sandbox.machine.netns), before);
  assert.deepEqual(log.of("pf-used-by-host"), [{ pf: PF, how: USE }]);
  // Without the route it is still the host's.
  await ip(sandbox.machine.netns, "route del default via 192.0.2.1");
  await isLogged(forwarder, /the host uses it: enp1s0f0 has address 192\.0\.2\.7\/24; make them/);
  assert.equal(await numVfs(sandbox), "0");
  await ip(sandbox.machine.netns, `address del 192.0.2.7/24 dev ${NAME}`);
  await offered(sandbox, 2);
  assert.equal(await numVfs(sandbox), "2");
  await eventually(
    () => forwarder.health.conditions(),
    (all) => all.length === 0,
  );
});

test("hostUse: create-vfs makes VFs on a PF that the host uses, in the first list and in a later one", async (t) => {
  if (!needs(t, "netns", "veth", "bridge")) return;
  const { sandbox } = await uplinkNode(t, { numVfs: 0 });
  const forwarder = await sandbox.startForwarder();
  await isLogged(forwarder, /^pf-without-vfs/);
  const { pfConfigFile } = sandbox;
  pfConfigFile.write(pfConfigFile.text.replace("pfKernelDriver", "hostUse: create-vfs\n    pfKernelDriver"));
  await offered(sandbox, 2);
  await sandbox.stopForwarder();
  await sandbox.machine.devices.writeText(`${PF}/sriov_numvfs`, "0");
  await sandbox.startForwarder();
  await offered(sandbox, 2);
  // Its VFs are withheld as everywhere.
  await ip(sandbox.machine.netns, `address add 10.9.9.9/24 dev ${NAME}v0`);
  await offered(sandbox, 1);
});

test("a PF that is the host's uplink serves with the VFs that it has, and is not touched", async (t) => {
  if (!needs(t, "netns", "veth", "bridge")) return;
  const { sandbox, log } = await uplinkNode(t);
  const monitor = new IpMonitor(sandbox.machine.netns);
  t.after(() => monitor.close());
  await monitor.news();
  const rows = async () => {
    const { links, addresses, routes } = await ipDump(sandbox.machine.netns);
    const own = [...links, ...addresses].filter(({ ifname }) => ifname === NAME);
    assert.equal(own.length, 2);
    return [...own, ...routes.filter((route) => route.includes(`dev ${NAME} `))];
  };
  const before = await rows();
  const forwarder = await sandbox.startForwarder();
  await offered(sandbox, 2);
  assert.deepEqual(log.of("pf-used-by-host"), [{ pf: PF, how: USE }]);
  assert.deepEqual(forwarder.health.conditions(), []);
  const pod = await sandbox.startPod("client-1");
  await pod.client.request();
  assert.equal((await pod.pod.link("nsm-1"))?.up, true);
  await pod.client.close();
  await sandbox.stopForwarder();
  assert.deepEqual(await rows(), before);
  const news = await monitor.news();
  assert.ok(
    news.some((line) => line.includes(`${NAME}v`)),
    "the monitor has seen VFs move",
  );
  assert.deepEqual(
    news.filter((line) => new RegExp(`\\b${NAME}\\b`).test(line)),
    [],
  );
});
