import assert from "node:assert/strict";
import { test } from "node:test";
import { encodeBlock } from "./bpf/allow-block.ts";
import { mayHold } from "./filter.ts";

const ours = { major: 245, minor: 7 };
const another = { major: 245, minor: 8 };
const program = encodeBlock({ devices: [another], originalId: 1 });

const rows = [
  ["one without a part of ours", { program, block: undefined }, false],
  ["one whose part is for another device", { program, block: { devices: [another], originalId: 1 } }, false],
  ["one whose part is for that device, too", { program, block: { devices: [another, ours], originalId: 1 } }, true],
  ["one whose instructions the kernel hides", { program: [], block: undefined }, true],
] as const;
for (const [which, filter, holds] of rows) {
  test(`mayHold() says ${holds ? "yes" : "no"} of ${which}`, () => assert.equal(mayHold(filter, [ours]), holds));
}
