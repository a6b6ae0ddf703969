import assert from "node:assert/strict";
import { test } from "node:test";
import { Inventory } from "../inventory/index.ts";
import { HandClock } from "../nsm/testing/fakes.ts";
import { parsePciAddress } from "../pci/index.ts";
import { recordingLog } from "../telemetry/recording-log.ts";
import { LeftOutVfs } from "./left-out-vfs.ts";

const pf = parsePciAddress("01:00.0");
const address = parsePciAddress("01:10.0");

test("LeftOutVfs.leaveOut() counts the time from the last failure, not from an earlier one", async () => {
  const inventory = new Inventory("6ba7b810-9dad-11d1-80b4-00c04fd430c8");
  const facts = { address, pf, index: 0, iommuGroup: undefined, numaNode: undefined, driver: "igbvf" };
  inventory.sync(pf, [{ ...facts, kernelDriver: "igbvf", resources: ["d/x"] }]);
  const clock = new HandClock();
  const binder = { hasStuckWrite: () => false };
  const leftOut = new LeftOutVfs({ inventory, binder, clock, log: recordingLog() });
  const problem = () => inventory.get(address)?.problem;
  leftOut.leaveOut(address, "no network device");
  await clock.pass(29_000);
  leftOut.leaveOut(address, "no network device");
  await clock.pass(29_000);
  assert.equal(problem(), "no network device");
  await clock.pass(1_000);
  assert.equal(problem(), undefined);
  assert.equal(clock.timerCount, 0);
});
