import assert from "node:assert/strict";
import { test } from "node:test";
import { problemCounts, problemsOf, type VfView } from "./view-form.ts";

const condition = (effect: VfView["conditions"][number]["effect"], label: string) => ({
  code: label,
  effect,
  label,
  text: label,
});
const vf = (state: VfView["state"], ...conditions: VfView["conditions"]) =>
  ({ address: "0000:3b:01.0", index: 0, state, conditions }) satisfies VfView;

test("problemsOf() takes what only informs for no problem", () => {
  const [unwell, informing] = [condition("unhealthy", "without carrier"), condition("inform", "recently restored")];
  assert.deepEqual(problemsOf(vf("idle", informing, unwell)), [unwell]);
});

test("problemCounts() counts each VF once, by what is wrong first, and none whose state says it", () => {
  const [first, second] = [condition("unhealthy", "without carrier"), condition("withhold", "used by the host")];
  const quarantined = vf("quarantined", condition("quarantine", "write stuck"));
  const counts = problemCounts([vf("idle", first, second), vf("ready", first), vf("idle", second), quarantined]);
  assert.deepEqual(counts, [
    { label: "without carrier", count: 2 },
    { label: "used by the host", count: 1 },
  ]);
});
