// PFs over time: one that fails and is mended, that goes and comes, that leaves the list and is back, and VFs that are made meanwhile.
import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { NOTHING_LEFT, pfLinkOf, type WatchedNodeOptions, watchedNode } from "../../test/scenes/watched-node.ts";
import type { Address, Link } from "../kernel/index.ts";
import { type PciAddress, parsePciAddress } from "../pci/index.ts";

const other = parsePciAddress("02:00.0");
const first = parsePciAddress("01:10.0");
const LIMIT = { limitMs: 1_000 };

async function opened(t: TestContext, options: WatchedNodeOptions = {}) {
  const paper = await watchedNode(t, { pfs: 2, ...options });
  const { node, close } = await paper.open();
  const { inventory, survey } = node;
  const codes = () =>
    paper.health
      .conditions()
      .map(({ code, subject }) => `${code} ${subject}`)
      .sort();
  const vfsOf = (pf: PciAddress) => inventory.snapshot().filter((vf) => vf.pf === pf);
  const bind = (pf: PciAddress, how: "bind" | "unbind") => paper.machine.drivers.writeText(`igb/${how}`, pf, LIMIT);
  const setVfs = (pf: PciAddress, count: number) =>
    paper.machine.devices.writeText(`${pf}/sriov_numvfs`, String(count), LIMIT);
  /** Time for drivers to answer, and for the observations that follow. */
  const settle = async () => {
    for (let times = 0; times < 3; times += 1) await paper.quiet();
  };
  return { ...paper, node, inventory, survey, close, codes, vfsOf, bind, setVfs, settle };
}

test("a PF that loses its driver is a fault until it has one again, and then gets its VFs again", async (t) => {
  const { pf, log, netlink, pfLinks, survey, codes, vfsOf, bind, settle, close } = await opened(t);
  pfLinks.set(pf, async () => pfLinkOf(pf));
  netlink.say({ kind: "lost" });
  await settle();
  assert.equal(survey.carrierOf(pf), "up");
  await bind(pf, "unbind");
  await settle();
  assert.deepEqual(codes(), [`pf-unusable ${pf}`]);
  assert.deepEqual([[...survey.pfs.keys()], survey.refusals.length, survey.carrierOf(pf)], [[other], 1, "unknown"]);
  assert.deepEqual(
    vfsOf(pf).map(({ problem }) => /no driver/.test(problem ?? "")),
    [true, true],
    "its VFs stay known: clients may have them",
  );
  assert.deepEqual([log.of("pf-not-managed"), log.of("pf-unusable").length], [[], 1]);
  await bind(pf, "bind");
  await settle();
  assert.deepEqual([codes(), survey.refusals, survey.carrierOf(pf)], [[], [], "up"]);
  assert.deepEqual(
    vfsOf(pf).map(({ problem }) => problem),
    [undefined, undefined],
  );
  await close();
});

test("a PF whose VFs were taken away is not said to have none when it has no driver, or is taken out, and gets them again then", async (t) => {
  for (const how of ["no driver", "taken out"] as const) {
    const { pf, machine, codes, vfsOf, bind, setVfs, settle, close } = await opened(t);
    await setVfs(pf, 0);
    await settle();
    assert.deepEqual(codes(), [`pf-without-vfs ${pf}`]);
    const putBack = how === "taken out" ? await machine.removePf(pf) : await bind(pf, "unbind");
    await settle();
    assert.deepEqual(codes(), [`pf-unusable ${pf}`], how);
    if (putBack) await putBack();
    else await bind(pf, "bind");
    await settle();
    assert.deepEqual([codes(), vfsOf(pf).length], [[], 2], how);
    await close();
  }
});

test("a PF that is taken out has no VFs, and gets them again when it is back", async (t) => {
  const { pf, machine, codes, vfsOf, settle, close } = await opened(t);
  const putBack = await machine.removePf(pf);
  await settle();
  assert.deepEqual([codes(), vfsOf(pf)], [[`pf-unusable ${pf}`], []]);
  await putBack();
  await settle();
  assert.deepEqual([codes(), vfsOf(pf).length], [[], 2]);
  await close();
});

test("a PF that leaves the list leaves nothing of it, whatever was wrong with it, and is observed as a new one when it is back", async (t) => {
  for (const wrong of ["nothing", "no driver", "its VFs were taken away"] as const) {
    const { pf, file, log, survey, codes, vfsOf, bind, setVfs, settle, close } = await opened(t);
    survey.setLink(pf, { up: true, carrier: true });
    if (wrong === "no driver") await bind(pf, "unbind");
    if (wrong === "its VFs were taken away") await setVfs(pf, 0);
    await settle();
    assert.equal(codes().length, wrong === "nothing" ? 0 : 1);
    if (wrong === "its VFs were taken away") assert.match(survey.problemOf(pf) ?? "", /were set to 0|was set to 0/);
    const whole = file.text;
    file.write(`physicalFunctions:\n  ${other}:${whole.split(`  ${other}:`)[1]}`);
    await settle();
    assert.deepEqual([codes(), vfsOf(pf), survey.refusals, [...survey.pfs.keys()]], [[], [], [], [other]], wrong);
    assert.equal(log.of("pf-not-managed").length, 1);
    assert.equal(survey.carrierOf(pf), "unknown");
    if (wrong === "no driver") await bind(pf, "bind");
    file.write(whole);
    await settle();
    assert.deepEqual([codes(), vfsOf(pf).length], [[], 2], wrong);
    await close();
  }
});

test("VFs that a driver makes are seen when it has answered, though no event reports them, and judged", async (t) => {
  const { pf, machine, netlink, pfLinks, open, health, quiet } = await watchedNode(t, {
    numVfs: 0,
    entry: "    carrier: require\n",
  });
  pfLinks.set(pf, async () => pfLinkOf(pf, { up: false, carrier: false }));
  machine.faults.loseUevents(1_000);
  const letGo = machine.faults.stallWrite({ tree: "devices", path: `${pf}/sriov_numvfs` });
  const { node, close } = await open();
  await quiet(1_000);
  letGo();
  for (let times = 0; times < 3; times += 1) await quiet();
  const codes = node.inventory.snapshot().map(({ conditions }) => conditions.map(({ code }) => code).join());
  assert.deepEqual(codes, ["pf-without-carrier", "pf-without-carrier"]);
  assert.deepEqual(netlink.changes, ['1000 {"up":true}'], "some drivers give VFs no address before");
  assert.ok(!health.conditions().some(({ code }) => code === "pf-without-vfs"));
  await close();
});

test("a PF that is up is not set up to make its VFs", async (t) => {
  const { pf, netlink, pfLinks, open, quiet } = await watchedNode(t, { numVfs: 0 });
  pfLinks.set(pf, async () => pfLinkOf(pf));
  const { close } = await open();
  await quiet();
  assert.deepEqual(netlink.changes, []);
  await close();
});

test("a stop while a driver makes VFs waits for none of them, and observes nothing when it has answered", async (t) => {
  const paper = await watchedNode(t, { numVfs: 0 });
  const letGo = paper.machine.faults.stallWrite({ tree: "devices", path: `${paper.pf}/sriov_numvfs` });
  const { close } = await paper.open();
  await paper.quiet();
  await close();
  const { observations } = paper.counts;
  letGo();
  await paper.quiet();
  assert.deepEqual([paper.counts.observations, paper.left()], [observations, NOTHING_LEFT]);
});

test("VFs are made on a PF that the host has used as soon as it lets go of it, or as the list allows it", async (t) => {
  for (const how of ["the host lets go", "the list allows it"] as const) {
    const used = await watchedNode(t, { numVfs: 0 });
    const index = used.netlink.links[0]?.index ?? 0;
    const address = { ifindex: index, address: "10.0.0.9", prefixLength: 24 } as Address;
    used.netlink.addresses = [address];
    const forwarder = await used.open();
    const settled = async () => {
      for (let times = 0; times < 4; times += 1) await used.quiet(1_000);
    };
    await settled();
    const { inventory, survey } = forwarder.node;
    assert.match(survey.problemOf(used.pf) ?? "", /none are made on it, for the host uses it/);
    const changes = used.netlink.changes.length;
    await settled();
    assert.equal(used.netlink.changes.length, changes, "the driver is not asked again and again");
    assert.deepEqual(inventory.snapshot(), []);
    if (how === "the host lets go") {
      used.netlink.addresses = [];
      used.netlink.say({ kind: "gone-address", address });
    } else used.file.write(`${used.file.text.trimEnd()}\n    hostUse: create-vfs\n`);
    await settled();
    assert.deepEqual([inventory.snapshot().length, survey.problemOf(used.pf)], [2, undefined], how);
    await forwarder.close();
  }
});

test("observations come one after the other, and one that fails keeps no later one", async (t) => {
  const { pf, host, pfLinks, survey, counts, quiet, close } = await opened(t, { pfs: 1 });
  const gate = Promise.withResolvers<undefined>();
  const { observations } = counts;
  const queried = { times: 0 };
  pfLinks.set(pf, async () => {
    queried.times += 1;
    return await gate.promise;
  });
  const both = [survey.observe(), survey.observe()];
  await quiet();
  assert.equal(queried.times, 1);
  gate.resolve(undefined);
  await Promise.all(both);
  assert.equal(counts.observations, observations + 2);
  const { pfPort } = host;
  host.pfPort = () => {
    throw new Error("no port");
  };
  await assert.rejects(survey.observe(), /no port/);
  host.pfPort = pfPort;
  await survey.observe();
  await close();
});

test("a list that leaves a PF out is judged by the next observation itself", async (t) => {
  const { inventory, survey, close } = await opened(t);
  const tokenId = inventory.devicesOf("worker.domain/intel").find((one) => one.address === first)?.id ?? "";
  inventory.take({ connectionId: "c1", tokenId, use: "kernel" });
  survey.reconfigure({ physicalFunctions: survey.config.physicalFunctions.slice(1) });
  await survey.observe();
  assert.deepEqual(
    inventory.get(first)?.conditions.map(({ code }) => code),
    ["gone", "pf-not-managed"],
  );
  await close();
});

test("what is worth a note is logged once, and shown as long as it is so", async (t) => {
  const paper = await watchedNode(t);
  const { node, close } = await paper.open();
  paper.file.write(paper.file.text.replace("vfKernelDriver: igbvf", "vfKernelDriver: nosuchvf"));
  await paper.quiet();
  for (let times = 0; times < 3; times += 1) await node.survey.observe();
  assert.equal(paper.log.of("vf-driver-missing").length, 1);
  assert.deepEqual(
    paper.health.conditions().map(({ code }) => code),
    ["vf-driver-missing"],
  );
  await close();
});

/** An observation whose read of the first PF does not answer, until its time is over. */
async function observedInVain({ pf, pfLinks, clock, survey, quiet }: Awaited<ReturnType<typeof opened>>) {
  const hanging = Promise.withResolvers<Link>();
  let count = 0;
  pfLinks.set(pf, () => {
    count += 1;
    return hanging.promise;
  });
  const observed = survey.observe();
  await quiet();
  await clock.pass(10_000);
  await observed;
  return { hanging, reads: () => count };
}

test("a PF whose reads hang holds up no other one, is not read again before they answer, and is observed then", async (t) => {
  const scene = await opened(t);
  const { pf, survey, codes, vfsOf, settle, close } = scene;
  const { hanging, reads } = await observedInVain(scene);
  assert.deepEqual([codes(), [...survey.pfs.keys()]], [[`pf-unusable ${pf}`], [other]]);
  assert.equal(vfsOf(pf).length, 2, "its VFs stay known: clients may have them");
  assert.match(survey.refusals.join(), /has not answered a read of its files within 10 s/);
  await survey.observe();
  assert.equal(reads(), 1);
  hanging.resolve(pfLinkOf(pf));
  await settle();
  assert.deepEqual([codes(), survey.pfs.size, reads() > 1], [[], 2, true]);
  await close();
});

test("a read of a PF that answers after the stop is followed by no other", async (t) => {
  const scene = await opened(t);
  const { pf, settle, close } = scene;
  const { hanging, reads } = await observedInVain(scene);
  await close();
  hanging.resolve(pfLinkOf(pf));
  await settle();
  assert.equal(reads(), 1);
});

test("the carrier of a PF is logged when it changes, and not each time that the kernel says the same", async (t) => {
  const { pf, log, survey, close } = await opened(t, { pfs: 1 });
  for (const carrier of [false, true, true, false]) survey.setLink(pf, { up: true, carrier });
  assert.deepEqual(
    log.of("pf-carrier").map(({ carrier }) => carrier),
    ["none yet", "there", "lost"],
  );
  await close();
});
