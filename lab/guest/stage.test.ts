import assert from "node:assert/strict";
import { test } from "node:test";
import type { GuestLine } from "../report.ts";
import { type GuestPlan, planGuests } from "../topologies.ts";
import type { LabNode } from "./node.ts";
import { Stage } from "./stage.ts";

/** A stage whose node is put right by `putRight`, with what it reports. */
function stageWith(putRight: () => Promise<void>) {
  const [plan] = planGuests({ kernels: ["6.12"], only: "no-iommu" }) as [GuestPlan];
  const lines: string[] = [];
  const ended: number[] = [];
  const stage = new Stage(plan, {
    open: async () =>
      ({ putRight, endLeftPods: async () => {}, stop: async () => "exit status 0" }) as unknown as LabNode,
    report: (line: GuestLine) => {
      if (line.kind === "test") lines.push(`${line.name}: ${line.error?.split("\n")[0] ?? "passed"}`);
      else lines.push(line.kind);
    },
    exit: (status: number): never => {
      ended.push(status);
      throw new Error("the guest has ended");
    },
  });
  return { stage, lines, ended };
}

const stories = {
  fails: async () => assert.fail("why"),
  follows: async () => {},
};

test("Stage puts the node right after a story that failed, and continues", async () => {
  let count = 0;
  const { stage, lines, ended } = stageWith(async () => void count++);
  await stage.scenario("one", (on) => on.stories(stories));
  assert.deepEqual(lines, ["fails: AssertionError [ERR_ASSERTION]: why", "follows: passed", "scenario"]);
  assert.deepEqual([count, ended], [1, []]);
});

test("Stage plays nothing on a node that cannot be put right: each story that is left fails, and the guest ends", async () => {
  const { stage, lines, ended } = stageWith(async () => assert.fail("a VF is not restored"));
  const scenario = stage.scenario("one", (on) => on.stories(stories));
  await assert.rejects(scenario, /the guest has ended/);
  assert.deepEqual(lines, [
    "fails: AssertionError [ERR_ASSERTION]: why",
    "follows: not played, for the node was not put right: a VF is not restored",
  ]);
  assert.deepEqual(ended, [1]);
});

test("Stage makes a failure of what a scenario throws between its stories", async () => {
  const { stage, lines } = stageWith(async () => {});
  await stage.scenario("one", async () => assert.fail("why"));
  assert.deepEqual(lines, ["is run to its end: AssertionError [ERR_ASSERTION]: why", "scenario"]);
});
