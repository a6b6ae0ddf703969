// Journals of this version and of earlier ones, as their own code wrote them (test/fixtures/journal/make.ts): a start over each
// continues with what it has. Its connections have expired; a start gives each some time all the same.
import assert from "node:assert/strict";
import { copyFileSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { commonStandIns } from "../../sandbox/nic/sysfs.ts";
import { PodCgroups } from "../../sandbox/pod/pod-cgroups.ts";
import { SANDBOX_RESOURCE, Sandbox } from "../../sandbox/sandbox.ts";
import { systemClock } from "../../src/async/index.ts";
import { openJournal } from "../../src/journal/index.ts";
import { Netns, openStateFolder, Rtnl } from "../../src/kernel/index.ts";
import { silentLog } from "../../src/telemetry/index.ts";
import { needs } from "../needs.ts";
import { eventually } from "./scenes/story.ts";
import { UNIFIED_NEEDS, unifiedCgroups, VFIO_NEEDS } from "./scenes/vfio-scene.ts";

const FIXTURES = join(import.meta.dirname, "..", "fixtures", "journal");
type PodName = "kernel-ready" | "vfio-ready" | "kernel-reclaiming" | "kernel-preparing";

/** One connection or one VF of the fixture, without what later versions may add. */
interface Entry {
  readonly connectionId: string;
  readonly stage: string;
  readonly mechanism: string;
  readonly tokenId?: string;
  readonly address: string;
}

for (const fixture of readdirSync(FIXTURES).filter((name) => name.includes("-cgroups-"))) {
  const version = fixture.endsWith("2") ? 2 : 1;
  test(`a start over the journal of ${fixture} continues with it`, async (t) => {
    if (!needs(t, ...(version === 1 ? VFIO_NEEDS : UNIFIED_NEEDS))) return;
    await startOver(
      t,
      join(FIXTURES, fixture),
      (version === 1 ? PodCgroups.make() : unifiedCgroups()) ?? assert.fail(),
    );
  });
}

async function startOver(t: TestContext, fixture: string, cgroups: PodCgroups): Promise<void> {
  const pods = JSON.parse(readFileSync(`${fixture}/pods.json`, "utf8")) as readonly {
    readonly name: PodName;
    readonly tokenId: string;
    readonly podUid: string;
  }[];
  const { connections: entries, vfs } = await recordsIn(fixture);
  const vfOf = (name: PodName) => {
    const { tokenId } = pods.find((pod) => pod.name === name) ?? assert.fail(name);
    return vfs.find((vf) => vf.tokenId === tokenId)?.address ?? assert.fail(name);
  };
  const idOf = (name: PodName) => {
    const { tokenId } = pods.find((pod) => pod.name === name) ?? assert.fail(name);
    return entries.find((entry) => entry.tokenId === tokenId)?.connectionId ?? assert.fail(name);
  };
  const machine = { realLinks: true, pfs: 2, vfsPerPf: 2, vfioStandIns: commonStandIns };
  const sandbox = await Sandbox.start({
    machine,
    cgroups,
    settings: { adminListenOn: undefined },
    log: silentLog,
    clock: systemClock,
  });
  t.after(async () => {
    await sandbox.stop(); // before the pods end
    await cgroups.close();
  });
  await shapeNode(t, sandbox, vfOf);
  for (const { podUid } of pods) {
    cgroups.addPod(podUid);
    cgroups.addContainer(podUid, "app");
  }
  for (const file of ["journal", "token-namespace"])
    copyFileSync(`${fixture}/${file}`, `${sandbox.folder}/state/${file}`);
  const { node, nsm } = await sandbox.startForwarder();

  const record = (name: PodName) => node.inventory.snapshot().find(({ address }) => address === vfOf(name));
  const seen = (name: PodName) => {
    const { state, connectionId, problem } = record(name) ?? assert.fail(name);
    return { state, connectionId, problem };
  };
  for (const name of ["kernel-ready", "vfio-ready"] as const)
    assert.deepEqual(seen(name), { state: "ready", connectionId: idOf(name), problem: undefined });
  const isRestored = (vf: ReturnType<typeof seen>) =>
    vf.state === "idle" && vf.connectionId === undefined && vf.problem === undefined;
  for (const name of ["kernel-preparing", "kernel-reclaiming"] as const) await eventually(() => seen(name), isRestored);
  for (const name of ["kernel-ready", "vfio-ready"] as const)
    assert.equal(record(name)?.tokenId, pods.find((pod) => pod.name === name)?.tokenId);
  const noop = entries.find(({ mechanism }) => mechanism === "NOOP")?.connectionId;
  const actual = nsm.connections().filter(({ phase }) => phase === "established");
  assert.deepEqual(
    actual.map(({ id, mechanism }) => `${mechanism} ${id}`).sort(),
    [`KERNEL ${idOf("kernel-ready")}`, `VFIO ${idOf("vfio-ready")}`, `NOOP ${noop}`].sort(),
  );
  await sandbox.kubelet.until(SANDBOX_RESOURCE, (devices) => devices.length === 4);
}

/** The last of each, with the base64 left as it is. */
async function recordsIn(fixture: string): Promise<Readonly<Record<"connections" | "vfs", readonly Entry[]>>> {
  const folder = await openStateFolder(fixture);
  const { journal, found } = await openJournal({
    file: await folder.openAppend("journal"),
    clock: systemClock,
    onTrouble() {},
  });
  await journal.close();
  assert.equal(found.damagedBytes, 0);
  const valuesOf = (kind: string) =>
    [...found.entries].filter(([key]) => key.startsWith(kind)).map(([, value]) => value as unknown as Entry);
  const connections = valuesOf("connection ");
  const stages = connections.map(({ stage, mechanism }) => `${mechanism} ${stage}`).sort();
  assert.deepEqual(stages, ["KERNEL preparing", "KERNEL ready", "KERNEL reclaiming", "NOOP ready", "VFIO ready"]);
  return { connections, vfs: valuesOf("vf ") };
}

/**
 * The node as the dead forwarder left it: two VFs with clients, one with the driver for user space, one not touched yet.
 */
async function shapeNode(t: TestContext, { machine }: Sandbox, vfOf: (name: PodName) => string): Promise<void> {
  const host = Rtnl.open({ netns: machine.netns });
  t.after(() => host.close());
  const moveOut = async (name: PodName) => {
    const pod = Netns.create();
    t.after(() => pod.close());
    const [ifname = ""] = await machine.devices.list(`${vfOf(name)}/net`);
    const link = (await host.linkByName(ifname)) ?? assert.fail(ifname);
    await host.setLink(link.index, { netns: pod, name: "nsm-1" });
    return pod;
  };
  await moveOut("kernel-ready");
  await moveOut("kernel-reclaiming");
  const address = vfOf("vfio-ready");
  await machine.devices.writeText(`${address}/driver_override`, "vfio-pci");
  await machine.drivers.writeText("igbvf/unbind", address);
  await machine.drivers.writeText("vfio-pci/bind", address);
}
