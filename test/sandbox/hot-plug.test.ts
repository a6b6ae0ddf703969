// What comes, goes and breaks on the node while the forwarder runs, as kubelet hears of it.
import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { SANDBOX_RESOURCE, Sandbox, type SandboxOptions } from "../../sandbox/sandbox.ts";
import { systemClock } from "../../src/async/index.ts";
import type { Forwarder } from "../../src/forwarder.ts";
import type { Rtnl } from "../../src/kernel/index.ts";
import type { Host } from "../../src/node/index.ts";
import { silentLog } from "../../src/telemetry/index.ts";
import { recordingLog } from "../../src/telemetry/recording-log.ts";
import { needs } from "../needs.ts";
import { ip } from "./scenes/ip.ts";
import { eventually } from "./scenes/story.ts";

const [FIRST_PF, SECOND_PF] = ["0000:01:00.0", "0000:02:00.0"];

async function startNode(t: TestContext, options: Partial<SandboxOptions> = {}) {
  const machine = { vfsPerPf: 2, ...options.machine };
  const sandbox = await Sandbox.start({ log: silentLog, clock: systemClock, ...options, machine });
  t.after(() => sandbox.stop());
  const forwarder = await sandbox.startForwarder();
  await offered(sandbox, 4);
  return { sandbox, forwarder };
}

/** Waits until kubelet has so many healthy devices, of so many that it knows. */
async function offered({ kubelet }: Sandbox, healthy: number, all?: number, resource = SANDBOX_RESOURCE) {
  const seen = () => {
    const devices = kubelet.devices.value?.get(resource) ?? [];
    return { healthy: devices.filter((one) => one.healthy).length, all: devices.length };
  };
  await eventually(seen, (now) => now.healthy === healthy && (all ?? now.all) === now.all);
}

/** Whatever has happened before is known by now: what the watch of the node hears is looked at in its order. */
async function caughtUp({ pfConfigFile }: Sandbox, forwarder: Forwarder): Promise<void> {
  const [before, refused] = [pfConfigFile.text, "pf-config-refused"];
  pfConfigFile.write("physicalFunctions: [nonsense]\n");
  await eventually(
    () => codes(forwarder),
    (now) => now.includes(refused),
  );
  pfConfigFile.write(before);
  await eventually(
    () => codes(forwarder),
    (now) => !now.includes(refused),
  );
}

const codes = ({ health }: Forwarder) => health.conditions().map(({ code }) => code);

test("VFs that an operator takes away are offered no more, and again when they come", async (t) => {
  const { sandbox, forwarder } = await startNode(t);
  const { devices } = sandbox.machine;
  await devices.writeText(`${SECOND_PF}/sriov_numvfs`, "0");
  await offered(sandbox, 2, 2);
  assert.equal(await devices.readText(`${SECOND_PF}/sriov_numvfs`), "0");
  await devices.writeText(`${SECOND_PF}/sriov_numvfs`, "2");
  await offered(sandbox, 4, 4);
  assert.deepEqual(codes(forwarder), []);
});

test("an adapter that is taken out is reported, and serves again when it is back", async (t) => {
  const { sandbox, forwarder } = await startNode(t);
  const putBack = await sandbox.machine.removePf(SECOND_PF);
  await offered(sandbox, 2, 2);
  assert.deepEqual(codes(forwarder), ["pf-unusable"]);
  await putBack();
  await offered(sandbox, 4, 4);
  assert.deepEqual(codes(forwarder), []);
});

test("events that were lost are made up for when the kernel says so", async (t) => {
  const { sandbox, forwarder } = await startNode(t);
  await caughtUp(sandbox, forwarder); // it looks once more after its start
  sandbox.machine.faults.loseUevents(1000);
  await sandbox.machine.devices.writeText(`${SECOND_PF}/sriov_numvfs`, "0");
  await caughtUp(sandbox, forwarder);
  assert.equal(forwarder.node.inventory.snapshot().length, 4);
  sandbox.machine.faults.clear();
  sandbox.machine.announce({ action: "lost", devpath: "", subsystem: "", fields: {} });
  await offered(sandbox, 2, 2);
});

test("a physical function without a driver has unhealthy VFs, which stay on the list", async (t) => {
  const { sandbox, forwarder } = await startNode(t);
  const { drivers } = sandbox.machine;
  await drivers.writeText("igb/unbind", SECOND_PF);
  await offered(sandbox, 2, 4);
  assert.deepEqual(codes(forwarder), ["pf-unusable"]);
  await drivers.writeText("igb/bind", SECOND_PF);
  await offered(sandbox, 4, 4);
});

test("a VF that is torn from a client is unhealthy, its neighbours are not", async (t) => {
  if (!needs(t, "netns", "veth", "bridge")) return;
  const { sandbox, forwarder } = await startNode(t, { machine: { vfsPerPf: 2, realLinks: true } });
  const pod = await sandbox.startPod("client-1");
  const connection = await pod.client.request();
  const address = connection.mechanism?.parameters["pciAddress"] ?? "";
  await sandbox.machine.drivers.writeText("igbvf/unbind", address);
  await offered(sandbox, 3, 4);
  const torn = forwarder.node.inventory.snapshot().filter(({ problem }) => problem !== undefined);
  assert.deepEqual(
    torn.map((vf) => vf.address),
    [address],
  );
  // Without its client it is as good as any: the client that gets it next has it bound.
  await pod.client.close();
  await offered(sandbox, 4, 4);
  await pod.client.request();
  assert.equal((await pod.pod.link("nsm-1"))?.up, true);
  await pod.client.close();
});

test("functions that vanish under a client come back whole, and the client is served again", async (t) => {
  if (!needs(t, "netns", "veth", "bridge")) return;
  const { sandbox, forwarder } = await startNode(t, { machine: { vfsPerPf: 2, realLinks: true } });
  const pod = await sandbox.startPod("client-1");
  await pod.client.request();
  const held = forwarder.node.inventory.snapshot().find(({ state }) => state === "ready");
  const file = `${held?.pf}/sriov_numvfs`;
  await sandbox.machine.devices.writeText(file, "0");
  await offered(sandbox, 2, 3);
  await sandbox.machine.devices.writeText(file, "2");
  await offered(sandbox, 4, 4);
  await pod.client.close();
  await pod.client.request();
  assert.equal((await pod.pod.link("nsm-1"))?.up, true);
  await pod.client.close();
  await eventually(
    () => forwarder.node.inventory.snapshot().map(({ state }) => state),
    (now) => now.every((state) => state === "idle" || state === "reserved"),
  );
});

test("a client whose VF has gone for good can close, and nothing of it stays", async (t) => {
  if (!needs(t, "netns", "veth", "bridge")) return;
  const { sandbox, forwarder } = await startNode(t, { machine: { vfsPerPf: 2, realLinks: true } });
  const { name, client } = await sandbox.startPod("client-1");
  await client.request();
  const held = forwarder.node.inventory.snapshot().find(({ state }) => state === "ready");
  await sandbox.machine.removePf(held?.pf ?? "");
  await offered(sandbox, 2, 3);
  sandbox.kubelet.free(name);
  await client.close();
  assert.equal(forwarder.nsm.connectionCount, 0);
});

test("a physical function that loses its carrier has unhealthy VFs, where it counts", async (t) => {
  if (!needs(t, "netns", "veth", "bridge")) return;
  const { sandbox, forwarder } = await startNode(t, { machine: { vfsPerPf: 2, realLinks: true } });
  const { machine, pfConfigFile } = sandbox;
  const ifname = forwarder.node.survey.pfs.get(FIRST_PF as never)?.ifname ?? "";
  await caughtUp(sandbox, forwarder);
  await ip(machine.netns, `link set dev ${ifname} down`);
  await offered(sandbox, 2, 4);
  assert.deepEqual(codes(forwarder), ["pf-without-carrier"]);
  const before = pfConfigFile.text;
  pfConfigFile.write(before.replaceAll("pfKernelDriver", "carrier: ignore\n    pfKernelDriver"));
  await offered(sandbox, 4, 4);
  pfConfigFile.write(before);
  await offered(sandbox, 2, 4);
  await ip(machine.netns, `link set dev ${ifname} up`);
  await offered(sandbox, 4, 4);
  assert.deepEqual(codes(forwarder), []);
});

test("a carrier that comes while its link is being read stays", async (t) => {
  if (!needs(t, "netns", "veth", "bridge")) return;
  const log = recordingLog();
  const reads = new Set<Rtnl>();
  const held: { by?: Promise<void>; readers?: ReadonlySet<Rtnl>; isSo?: true } = {};
  const host = (real: Host): Host => ({
    ...real,
    pfLink: async (place, pf) => {
      const link = await real.pfLink(place, pf);
      reads.add(place.rtnl);
      // A look has a socket of its own: what has read before is the watch.
      if (pf === FIRST_PF && held.readers?.has(place.rtnl)) {
        held.isSo = true;
        await held.by;
      }
      return link;
    },
  });
  const { sandbox, forwarder } = await startNode(t, { log, host, machine: { vfsPerPf: 2, realLinks: true } });
  const { machine } = sandbox;
  const ifname = forwarder.node.survey.pfs.get(FIRST_PF as never)?.ifname ?? "";
  const carriers = () => log.of("pf-carrier").flatMap(({ pf, carrier }) => (pf === FIRST_PF ? [carrier] : []));
  await caughtUp(sandbox, forwarder);
  await ip(machine.netns, `link set dev ${ifname} down`);
  await offered(sandbox, 2, 4);
  const { promise, resolve } = Promise.withResolvers<void>();
  Object.assign(held, { by: promise, readers: new Set(reads) });
  machine.announce({ action: "lost", devpath: "", subsystem: "", fields: {} });
  await eventually(
    () => held.isSo,
    (isSo) => isSo === true,
  );
  await ip(machine.netns, `link set dev ${ifname} up`);
  await offered(sandbox, 4, 4);
  resolve();
  await caughtUp(sandbox, forwarder);
  assert.deepEqual(carriers(), ["there", "lost", "there"]);
});

test("another list of physical functions is taken while it runs, and a bad one is not", async (t) => {
  const { sandbox, forwarder } = await startNode(t);
  const { pfConfigFile } = sandbox;
  const before = pfConfigFile.text;
  pfConfigFile.write(before.replace("[intel, 10G]", "[intel, 25G]"));
  await offered(sandbox, 2, 2);
  await offered(sandbox, 2, 2, "worker.domain/25G");
  await offered(sandbox, 4, 4, "worker.domain/intel");
  pfConfigFile.write("physicalFunctions: [nonsense]\n");
  await eventually(
    () => codes(forwarder),
    (now) => now.includes("pf-config-refused"),
  );
  await offered(sandbox, 2, 2);
  pfConfigFile.write(before.slice(0, before.indexOf(`  ${SECOND_PF}`)));
  await offered(sandbox, 2, 2, "worker.domain/intel");
  await offered(sandbox, 0, 0, "worker.domain/25G");
  assert.deepEqual(codes(forwarder), []);
});
