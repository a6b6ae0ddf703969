// The node over time: an event while another one is being seen to, what was lost, what comes back, a stop in the middle.
import assert from "node:assert/strict";
import { test } from "node:test";
import { until } from "../../test/scenes/until.ts";
import { NOTHING_LEFT, pfLinkOf, watchedNode } from "../../test/scenes/watched-node.ts";
import type { Address, Link } from "../kernel/index.ts";
import { parsePciAddress } from "../pci/index.ts";

const [first, second] = [parsePciAddress("01:10.0"), parsePciAddress("01:10.2")];

const OPEN = { ...NOTHING_LEFT, sockets: 3, netlinkListeners: 2, ueventListeners: 2, fileListeners: 1, locks: 1 };

for (const when of [
  "at rest",
  "while events wait",
  "while a look is under way",
  "while another process is waited for",
]) {
  test(`close() ${when} leaves neither socket, listener, timer nor lock, and nothing is observed any more`, async (t) => {
    const paper = await watchedNode(t, { pfs: when === "while another process is waited for" ? 2 : 1 });
    const [, other] = paper.machine.pfs;
    const theirs = other === undefined ? undefined : paper.machine.locks.pf(other);
    const { close } = await paper.open({ waitsMs: theirs ? 5_000 : 0 });
    assert.deepEqual({ ...paper.left(), timers: 0 }, OPEN);
    const failing = Promise.withResolvers<undefined>();
    if (when !== "at rest") paper.announce({ action: "lost" });
    if (when === "while events wait") await new Promise(setImmediate);
    if (when.startsWith("while a")) {
      let queried = 0;
      // The observation itself has its answer; the reading of the links that follows has none.
      paper.pfLinks.set(paper.pf, async () => {
        queried += 1;
        return queried === 1 ? undefined : await failing.promise;
      });
      await paper.quiet(50);
    }
    const { observations } = paper.counts;
    const { dumps } = paper.netlink;
    failing.promise.catch(() => {});
    setImmediate(() => failing.reject(new Error("it is being renamed")));
    await close();
    await paper.quiet();
    assert.deepEqual(paper.left(), NOTHING_LEFT);
    paper.announce({ action: "lost" });
    paper.netlink.say({ kind: "lost" });
    paper.file.write("");
    await paper.quiet(60_000);
    assert.deepEqual(
      [paper.counts.observations - observations, paper.netlink.dumps - dumps, paper.left()],
      [0, 0, NOTHING_LEFT],
    );
    theirs?.release();
  });
}

test("close() waits no longer than a second for an observation that does not end", async (t) => {
  const paper = await watchedNode(t);
  const { watch, node } = await paper.open();
  const stuck = Promise.withResolvers<undefined>();
  paper.pfLinks.set(paper.pf, () => stuck.promise);
  watch.rescan();
  await paper.quiet(50);
  let isClosed = false;
  const closing = watch.close().then(() => {
    isClosed = true;
  });
  await paper.quiet(999);
  assert.equal(isClosed, false);
  await paper.clock.pass(1);
  await closing;
  stuck.resolve(undefined);
  node.close();
  await paper.quiet();
  assert.deepEqual(paper.left(), NOTHING_LEFT);
});

test("watchNode() takes over the driver that a VF has got from another process, of two that change at once both", async (t) => {
  const paper = await watchedNode(t);
  const { node, close } = await paper.open();
  const drivers = () => [first, second].map((address) => node.inventory.get(address)?.driver);
  assert.deepEqual(drivers(), ["igbvf", "igbvf"]);
  const { observations } = paper.counts;
  for (const address of [first, second]) {
    await paper.machine.drivers.writeText("igbvf/unbind", address, { limitMs: 1_000 });
  }
  await paper.quiet();
  assert.deepEqual(drivers(), [undefined, undefined]);
  await paper.machine.drivers.writeText("igbvf/bind", second, { limitMs: 1_000 });
  await paper.quiet();
  assert.deepEqual(
    [drivers(), paper.counts.observations],
    [[undefined, "igbvf"], observations],
    "the node was not read again for it",
  );
  await close();
});

test("watchNode() reads the node again for events that come while it is being read, one reading at a time", async (t) => {
  const paper = await watchedNode(t, { pfs: 2 });
  const { node, close } = await paper.open();
  const gate = Promise.withResolvers<undefined>();
  const queried = { times: 0 };
  // The VFs of the first one are read by then.
  paper.pfLinks.set(parsePciAddress("02:00.0"), () => {
    queried.times += 1;
    return gate.promise;
  });
  paper.announce({ action: "lost" });
  await paper.quiet(50);
  await paper.machine.devices.writeText(`${paper.pf}/sriov_numvfs`, "0", { limitMs: 1_000 });
  await paper.quiet(50);
  assert.equal(queried.times, 1);
  gate.resolve(undefined);
  await paper.quiet(50);
  await paper.quiet(50);
  assert.deepEqual(
    node.inventory.snapshot().map(({ pf }) => pf),
    ["0000:02:00.0", "0000:02:00.0"],
  );
  await close();
});

test("watchNode() reads the links of an observation to their end before it begins another one", async (t) => {
  const paper = await watchedNode(t);
  const { close } = await paper.open();
  const gate = Promise.withResolvers<undefined>();
  const queried = { times: 0 };
  paper.pfLinks.set(paper.pf, async () => {
    queried.times += 1;
    return queried.times === 2 ? await gate.promise : undefined;
  });
  paper.announce({ action: "lost" });
  await paper.quiet(50);
  paper.announce({ action: "lost" });
  await paper.quiet(50);
  assert.equal(queried.times, 2);
  gate.resolve(undefined);
  await paper.quiet(50);
  assert.equal(queried.times, 4);
  await close();
});

test("watchNode() knows links and the host's use on return, and makes up for what came before it heard anything", async (t) => {
  const paper = await watchedNode(t, { pfs: 2, entry: "    carrier: require\n" });
  const link = { ...pfLinkOf(paper.pf), carrier: false };
  const own = paper.netlink.links.find(({ name }) => name === "enp1s0f0v0") ?? assert.fail();
  paper.pfLinks.set(paper.pf, async () => link);
  const between = () => {
    paper.netlink.addresses = [{ ifindex: own.index, address: "10.0.0.9", prefixLength: 24 } as Address];
    paper.file.text = paper.file.text.split("  0000:02:00.0:")[0] ?? "";
  };
  const { node, close } = await paper.open({ between, isQuiet: false });
  const codes = node.inventory.get(first)?.conditions.map(({ code }) => code);
  assert.deepEqual(codes, ["pf-without-carrier", "host-use"]);
  await paper.machine.devices.writeText(`${paper.pf}/sriov_numvfs`, "0", { limitMs: 1_000 });
  await paper.quiet();
  assert.deepEqual(node.inventory.snapshot(), []);
  await close();
});

test("watchNode() observes once more at the start, though no event came", async (t) => {
  const paper = await watchedNode(t);
  const { observations } = paper.counts;
  const { close } = await paper.open();
  assert.equal(paper.counts.observations - observations, 2);
  await close();
});

for (const other of ["lost", "of a driver"] as const) {
  test(`watchNode() forgets neither a list nor a link that has changed for an event ${other} that comes next`, async (t) => {
    const { pf, netlink, found, file, health, announce, quiet, close } = await withLink(t);
    const event = other === "lost" ? { action: "lost" } : { action: "bind", subsystem: "pci", devpath: `/x/${first}` };
    file.write("physicalFunctions: [");
    announce(event);
    await quiet();
    assert.deepEqual(
      health.conditions().map(({ code }) => code),
      ["pf-config-refused"],
    );
    const { queried } = found;
    found.link = pfLinkOf(pf, { carrier: false });
    netlink.say({ kind: "lost" });
    announce(event);
    await quiet();
    assert.ok(found.queried > queried);
    announce({ action: "lost" });
    announce(event);
    file.write("physicalFunctions: [");
    const before = found.queried;
    await quiet();
    assert.ok(found.queried > before + 1, "the node was read");
    await close();
  });
}

test("watchNode() continues where a VF has gone before its driver could be read, and reads each VF's driver once", async (t) => {
  const paper = await watchedNode(t);
  const { node, close } = await paper.open();
  const queried: string[] = [];
  const { binder, inventory } = node;
  const driverOf = binder.driverOf.bind(binder);
  binder.driverOf = async (address) => {
    queried.push(address);
    return await driverOf(address);
  };
  for (const address of [first, second]) {
    paper.announce({ action: "bind", subsystem: "pci", devpath: `/x/${address}` });
    await paper.quiet();
  }
  assert.deepEqual(queried, [first, second]);
  binder.driverOf = async () => {
    inventory.sync(paper.pf, []);
    return undefined;
  };
  paper.announce({ action: "bind", subsystem: "pci", devpath: `/x/${first}` });
  await paper.quiet();
  assert.deepEqual(paper.log.of("node-not-observed"), []);
  await close();
});

test("watchNode() reports a driver that is taken from under a client, not one that a Request is changing", async (t) => {
  const paper = await watchedNode(t);
  const { node, close } = await paper.open();
  const { inventory } = node;
  const codes = () => inventory.get(first)?.conditions.map(({ code }) => code);
  const tokenId = inventory.devicesOf("worker.domain/intel").find(({ address }) => address === first)?.id ?? "";
  inventory.take({ connectionId: "c1", tokenId, use: "kernel" });
  await paper.machine.drivers.writeText("igbvf/unbind", first, { limitMs: 1_000 });
  await paper.quiet();
  assert.deepEqual(codes(), []);
  inventory.setState("c1", "ready");
  await paper.machine.drivers.writeText("igbvf/bind", first, { limitMs: 1_000 });
  await paper.quiet();
  assert.deepEqual(codes(), []);
  await paper.machine.drivers.writeText("igbvf/unbind", first, { limitMs: 1_000 });
  await paper.quiet();
  assert.deepEqual(codes(), ["driver-taken"]);
  await close();
});

for (const [says, event, isRead] of [
  ["lost", { action: "lost" }, true],
  [
    "of any PCI function that comes",
    { action: "add", subsystem: "pci", devpath: "/devices/pci0000:00/0000:07:00.0" },
    true,
  ],
  [
    "of any PCI function that goes",
    { action: "remove", subsystem: "pci", devpath: "/devices/pci0000:00/0000:07:00.0" },
    true,
  ],
  ["of a PF's driver", { action: "bind", subsystem: "pci", devpath: "/devices/pci0000:00/0000:01:00.0" }, true],
  [
    "of a PF's network device",
    { action: "add", subsystem: "net", devpath: "/devices/pci0000:00/0000:01:00.0/net/eth7" },
    true,
  ],
  [
    "of another one's network device",
    { action: "add", subsystem: "net", devpath: "/devices/virtual/net/veth7" },
    false,
  ],
  [
    "of something else of a PF",
    { action: "add", subsystem: "hwmon", devpath: "/devices/pci0000:00/0000:01:00.0/hwmon/hwmon1" },
    false,
  ],
] as const) {
  test(`watchNode() ${isRead ? "reads" : "does not read"} the node again at an event ${says}`, async (t) => {
    const paper = await watchedNode(t);
    const { close } = await paper.open();
    await paper.quiet(2_000);
    const { observations } = paper.counts;
    const { dumps } = paper.netlink;
    paper.announce(event);
    paper.announce(event);
    await paper.quiet();
    assert.equal(paper.counts.observations - observations, isRead ? 1 : 0);
    await paper.quiet(2_000);
    assert.equal(paper.netlink.dumps > dumps, isRead, "what the host uses");
    await close();
  });
}

test("watchNode() continues after an observation that has failed", async (t) => {
  const paper = await watchedNode(t);
  const { node, close } = await paper.open();
  const { observe } = node.survey;
  node.survey.observe = () => Promise.reject(new Error("odd"));
  paper.announce({ action: "lost" });
  await paper.quiet();
  assert.deepEqual(paper.log.of("node-not-observed"), [{ error: "Error: odd" }]);
  node.survey.observe = observe;
  const { observations } = paper.counts;
  paper.announce({ action: "lost" });
  await paper.quiet();
  assert.equal(paper.counts.observations, observations + 1);
  await close();
});

test("watchNode() tries again what another process has, until that has ended, and only then rests", async (t) => {
  const paper = await watchedNode(t);
  const theirs = paper.machine.locks.pf(paper.pf);
  const { node, close } = await paper.open({ waitsMs: 5_000 });
  assert.deepEqual([node.inventory.snapshot(), node.survey.isWaiting], [[], true]);
  await paper.quiet(12_000);
  assert.deepEqual(node.inventory.snapshot(), []);
  theirs?.release();
  await paper.quiet(5_000);
  await paper.quiet(100);
  assert.deepEqual([node.inventory.snapshot().length, node.survey.isWaiting], [2, false]);
  const { observations } = paper.counts;
  await paper.quiet(60_000);
  assert.equal(paper.counts.observations, observations);
  await close();
});

test("watchNode() takes another list of PFs, keeps the one of before where it is wrong, and says so until it is mended", async (t) => {
  const paper = await watchedNode(t, { pfs: 2 });
  const { node, close } = await paper.open();
  const whole = paper.file.text;
  const codes = () => paper.health.conditions().map(({ code }) => code);
  const offered = () => node.inventory.snapshot().filter(({ problem }) => problem === undefined).length;
  assert.deepEqual([offered(), paper.log.of("pf-config-applied")], [4, []], "the same list is none");
  paper.file.write("physicalFunctions: [");
  await paper.quiet();
  assert.deepEqual([codes(), offered()], [["pf-config-refused"], 4]);
  paper.file.write(whole.split("  0000:02:00.0:")[0] ?? "");
  await paper.quiet();
  assert.deepEqual([codes(), offered()], [[], 2]);
  paper.file.write(whole);
  await paper.quiet();
  assert.deepEqual([offered(), node.inventory.snapshot().length], [4, 4]);
  assert.equal(paper.log.of("pf-config-applied").length, 2);
  await close();
});

test("watchNode() says no more that a list is wrong when the file has the one in force again", async (t) => {
  const paper = await watchedNode(t, { pfs: 2 });
  const { close } = await paper.open();
  const whole = paper.file.text;
  const codes = () => paper.health.conditions().map(({ code }) => code);
  paper.file.write("physicalFunctions: [");
  await paper.quiet();
  assert.deepEqual(codes(), ["pf-config-refused"]);
  paper.file.write(whole);
  await paper.quiet();
  assert.deepEqual([codes(), paper.log.of("pf-config-applied")], [[], []]);
  await close();
});

/** A PF whose link the kernel has, and what its VFs suffer of it. */
async function withLink(t: Parameters<typeof watchedNode>[0], link: Partial<Link> = {}) {
  const paper = await watchedNode(t, { entry: "    carrier: require\n" });
  const found = { link: pfLinkOf(paper.pf, link), queried: 0 };
  paper.pfLinks.set(paper.pf, async () => {
    found.queried += 1;
    return found.link;
  });
  const opened = await paper.open();
  const { inventory, survey } = opened.node;
  const seen = () => [
    survey.carrierOf(paper.pf),
    inventory
      .get(first)
      ?.conditions.map(({ code }) => code)
      .join(),
  ];
  return { ...paper, ...opened, found, seen };
}

test("watchNode() follows the link of a PF, and what other links say is nothing to it", async (t) => {
  const { pf, netlink, found, seen, quiet, close } = await withLink(t, { carrier: false });
  assert.deepEqual(seen(), ["down", "pf-without-carrier"]);
  const { queried } = found;
  netlink.say({ kind: "new-link", link: pfLinkOf(pf, { index: 1001 }) });
  assert.deepEqual(seen(), ["down", "pf-without-carrier"]);
  netlink.say({ kind: "new-link", link: pfLinkOf(pf) });
  assert.deepEqual(seen(), ["up", ""]);
  netlink.say({ kind: "new-link", link: pfLinkOf(pf, { up: false }) });
  assert.deepEqual(seen(), ["down", "pf-without-carrier"]);
  await quiet();
  assert.equal(found.queried, queried, "the kernel said it all");
  await close();
});

test("watchNode() reads the links again where events were lost, or where an index is another link's by now", async (t) => {
  const { pf, netlink, found, seen, quiet, close } = await withLink(t);
  found.link = pfLinkOf(pf, { carrier: false });
  netlink.say({ kind: "lost" });
  await quiet();
  assert.deepEqual(seen(), ["down", "pf-without-carrier"]);
  found.link = pfLinkOf(pf, { index: 1002 });
  netlink.say({ kind: "new-link", link: pfLinkOf(parsePciAddress("07:00.0")) });
  assert.deepEqual(seen(), ["down", "pf-without-carrier"], "it is another one's carrier");
  await quiet();
  assert.deepEqual(seen(), ["up", ""]);
  await close();
});

test("watchNode() believes what the kernel says of a link while that is being read, not the older answer", async (t) => {
  const { pf, pfLinks, netlink, watch, seen, quiet, close } = await withLink(t);
  const answer = Promise.withResolvers<Link>();
  let queried = 0;
  // The first query is the observation's own: whether the link is the PF's.
  pfLinks.set(pf, async () => {
    queried += 1;
    return queried === 2 ? await answer.promise : pfLinkOf(pf, { carrier: queried > 2 });
  });
  watch.rescan();
  await quiet(50);
  await until("the watch reads the link", () => queried === 2);
  netlink.say({ kind: "new-link", link: pfLinkOf(pf, { carrier: false }) });
  netlink.say({ kind: "new-link", link: pfLinkOf(parsePciAddress("07:00.0"), { index: 1001 }) });
  answer.resolve(pfLinkOf(pf));
  for (let turn = 0; turn < 50; turn += 1) await new Promise(setImmediate);
  assert.equal(seen()[0], "down");
  await quiet();
  assert.ok(queried > 2, "and asks once more: the answer may be older than the event");
  assert.equal(seen()[0], "up");
  await close();
});

test("watchNode() does not take for a PF's what is said of another link under its index while that is being read", async (t) => {
  const { pf, pfLinks, netlink, watch, seen, quiet, close } = await withLink(t);
  const answer = Promise.withResolvers<Link>();
  let queried = 0;
  pfLinks.set(pf, async () => {
    queried += 1;
    return queried === 2 ? await answer.promise : pfLinkOf(pf);
  });
  watch.rescan();
  await quiet(50);
  await until("the watch reads the link", () => queried === 2);
  netlink.say({ kind: "new-link", link: pfLinkOf(parsePciAddress("07:00.0"), { carrier: false }) });
  answer.resolve(pfLinkOf(pf));
  for (let turn = 0; turn < 50; turn += 1) await new Promise(setImmediate);
  assert.equal(seen()[0], "up");
  await quiet();
  await close();
});

test("watchNode() reads the node again where the link of a PF could not be read", async (t) => {
  const { pf, pfLinks, netlink, log, counts, seen, quiet, close } = await withLink(t);
  const { observations } = counts;
  let fails = 1;
  pfLinks.set(pf, async () => {
    if (fails-- > 0) throw new Error("it is being renamed");
    return pfLinkOf(pf, { carrier: false });
  });
  netlink.say({ kind: "lost" });
  await quiet();
  assert.equal(log.of("pf-link-unknown").length, 1);
  await quiet();
  assert.deepEqual([seen()[0], counts.observations], ["down", observations + 1]);
  await close();
});
