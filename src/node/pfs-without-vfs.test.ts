import assert from "node:assert/strict";
import { test } from "node:test";
import { HandClock } from "../nsm/testing/fakes.ts";
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
    bringUp: () => new Promise(() => {}), // the driver is asked, and does not answer
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
