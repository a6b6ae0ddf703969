import assert from "node:assert/strict";
import { test } from "node:test";
import { first, kernelEntry, reconciledNode } from "../../test/scenes/reconciled-node.ts";
import { createMetrics } from "../telemetry/index.ts";
import { Actions, type ActionsOptions } from "./actions.ts";

test("Actions.repair() restores no VF that a connection has got since it was decided on", async () => {
  const { inventory, journal, clock, give, codes, done } = reconciledNode();
  const options = { node: { inventory }, journal, clock, metrics: createMetrics() } as unknown as ActionsOptions;
  const actions = new Actions(options);
  const decidedOn = inventory.get(first) ?? assert.fail();
  give(first, "c2");
  assert.equal(await actions.repair("restore", decidedOn, kernelEntry(first)), false);
  assert.deepEqual([codes(), done], [[], []]);
});
