import assert from "node:assert/strict";
import { test } from "node:test";
import { HandClock, settled } from "../nsm/testing/fakes.ts";
import { type PhysicalFunction, parsePciAddress, type VfFacts } from "../pci/index.ts";
import { Health } from "../telemetry/index.ts";
import { recordingLog } from "../telemetry/recording-log.ts";
import type { Host } from "./host.ts";
import { PfsWithoutVfs } from "./pfs-without-vfs.ts";

const address = parsePciAddress("01:00.0");
const pf = {
  address,
  ifindex: 3,
  totalVfs: 2,
  eswitchMode: "legacy",
  entry: {},
  vfs: [],
} as unknown as PhysicalFunction;
const vf = { address: parsePciAddress("01:10.0"), pf: address, index: 0 } as VfFacts;

test("PfsWithoutVfs.judge() leaves out the VFs that there are as long as the driver makes the others", () => {
  const clock = new HandClock();
  const creation = new PfsWithoutVfs({
    host: {} as Host,
    withoutVfs: new Health(clock).condition("pf-without-vfs"),
    bringUp: () => new Promise(() => {}), // the driver gets the request, and does not answer
    refuse: () => assert.fail("its link is not up yet"),
    onAnswered: () => assert.fail("it has not answered"),
    clock,
    log: recordingLog(),
  });
  assert.deepEqual(creation.judge(pf), pf);
  assert.match(creation.problemOf(address) ?? "", /its driver is being asked for 2/);
  assert.deepEqual(creation.judge({ ...pf, vfs: [vf] }), pf);
  creation.close();
});

const otherDevice = { ...pf, ifindex: 4 };
const withVfs = (device: PhysicalFunction) => ({ ...device, vfs: [vf] });

/** A PF whose driver answers when `answer` says so; `hostUse` keeps VFs from being made. */
function setUp() {
  const clock = new HandClock();
  const health = new Health(clock);
  const node = { hostUse: undefined as string | undefined, vfs: [] as string[], writes: 0, answered: 0, listeners: 0 };
  const steps: string[] = [];
  let answer = Promise.withResolvers<void>();
  const devices = {
    readText: async () => "0",
    list: async () => node.vfs,
    readLink: async (path: string) => `../0000:01:10.${path.at(-1)}`,
    async writeText() {
      node.writes += 1;
      await answer.promise;
    },
  };
  const uevents = {
    subscribe() {
      node.listeners += 1;
      return () => {
        node.listeners -= 1;
      };
    },
  };
  const pfs = new PfsWithoutVfs({
    host: { devices, uevents } as unknown as Host,
    withoutVfs: health.condition("pf-without-vfs"),
    bringUp: async () => void steps.push("bring up"),
    async refuse() {
      steps.push("ask what the host uses");
      return node.hostUse;
    },
    onAnswered() {
      node.answered += 1;
    },
    clock,
    log: recordingLog(),
  });
  const reported = () => health.conditions().map(({ sentence }) => sentence);
  /** The driver has made them, or says why not, or has made them of a device that has gone. */
  const answers = async (error?: Error | "none") => {
    if (error === undefined) node.vfs = ["virtfn0", "virtfn1"];
    if (error instanceof Error) answer.reject(error);
    else answer.resolve();
    await settled();
    answer = Promise.withResolvers();
  };
  return { pfs, node, steps, reported, answers, clock };
}

test("PfsWithoutVfs requests VFs of a driver once, and when it has answered the PF is as it is observed", async () => {
  const { pfs, node, steps, reported, answers, clock } = setUp();
  for (let observations = 0; observations < 3; observations += 1) pfs.judge(pf);
  await settled();
  assert.deepEqual([node.writes, steps, reported().length], [1, ["bring up", "ask what the host uses"], 1]);
  await answers();
  assert.deepEqual([node.answered, pfs.judge(withVfs(pf))], [1, withVfs(pf)]);
  assert.deepEqual([reported(), pfs.problemOf(address), clock.timerCount, node.listeners], [[], undefined, 0, 0]);
  assert.deepEqual([pfs.judge(pf), node.writes], [pf, 1], "an operator has taken them away");
  assert.match(reported()[0] ?? "", /their number was set to 0/);
  pfs.judge(otherDevice);
  await settled();
  assert.equal(node.writes, 2, "it is another device");
});

test("PfsWithoutVfs takes VFs that it has made for the operator's to take away, though no observation has seen them", async () => {
  const { pfs, node, reported, answers } = setUp();
  pfs.judge(pf);
  await settled();
  await answers();
  pfs.judge(pf);
  await settled();
  assert.deepEqual([node.writes, reported().length], [1, 1]);
});

test("PfsWithoutVfs repeats a request that a driver has refused only for another device, or when it was away", async () => {
  for (const then of ["another device", "it was away", "VFs that an operator made"] as const) {
    const { pfs, node, reported, answers } = setUp();
    pfs.judge(pf);
    await settled();
    await answers(new Error("no room"));
    const fault = pfs.judge(pf);
    assert.match("message" in fault ? fault.message : "", /Cannot make .*no room/);
    assert.deepEqual([node.writes, reported()], [1, []], "the fault says it");
    if (then === "VFs that an operator made") {
      assert.deepEqual(pfs.judge(withVfs(pf)), withVfs(pf));
      assert.ok(!("kind" in pfs.judge(pf)));
      assert.equal(node.writes, 1);
      continue;
    }
    if (then === "it was away") pfs.forget(address);
    pfs.judge(then === "another device" ? otherDevice : pf);
    await settled();
    assert.equal(node.writes, 2);
  }
});

test("PfsWithoutVfs takes a device whose index could not be read for the one before", async () => {
  const { pfs, node, answers } = setUp();
  pfs.judge(pf);
  await settled();
  await answers(new Error("no room"));
  assert.ok("kind" in pfs.judge({ ...pf, ifindex: undefined }));
  await settled();
  assert.equal(node.writes, 1);
});

test("PfsWithoutVfs makes none for the host's sake, does not try again, and does when that has changed or the PF was away", async () => {
  for (const then of ["has changed", "was away"] as const) {
    const { pfs, node, steps, reported } = setUp();
    node.hostUse = "the host uses it";
    pfs.judge(pf);
    await settled();
    for (let observations = 0; observations < 2; observations += 1) pfs.judge(pf);
    await settled();
    assert.deepEqual([steps.length, node.writes, reported()], [2, 0, ["the host uses it"]]);
    node.hostUse = undefined;
    if (then === "has changed") pfs.hostUseChanged();
    else pfs.forget(address);
    if (then === "was away") assert.deepEqual(reported(), []);
    pfs.judge(pf);
    await settled();
    assert.equal(node.writes, 1);
  }
});

test("PfsWithoutVfs waits for the VFs of no device that has gone, and requests them of the one that has come in its place", async () => {
  for (const how of ["forget", "another device"] as const) {
    const { pfs, node, reported, answers } = setUp();
    pfs.judge(pf);
    await settled();
    if (how === "forget") pfs.forget(address);
    else pfs.judge(otherDevice);
    await answers("none");
    assert.deepEqual([node.answered, node.listeners], [1, 0]);
    // The same index: nothing says that it is not the device that was away.
    const found = pfs.judge(how === "forget" ? pf : otherDevice);
    assert.ok(!("kind" in found), "what went wrong was the former's");
    await settled();
    assert.deepEqual([node.writes, reported().length], [2, 1]);
  }
});

test("PfsWithoutVfs that is closed waits for no VF any more, and has nothing observed", async () => {
  const { pfs, node, clock, answers } = setUp();
  pfs.judge(pf);
  await settled();
  pfs.close();
  await answers("none");
  assert.deepEqual([node.answered, node.listeners, clock.timerCount], [0, 0, 0]);
});
