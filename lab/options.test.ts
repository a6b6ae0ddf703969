import assert from "node:assert/strict";
import { test } from "node:test";
import { readOptions } from "./options.ts";
import { planGuests, restOf, titleOf, topologies } from "./topologies.ts";

test("readOptions() takes all kernels and one guest for each CPU by default", () => {
  const options = readOptions([], 5);
  assert.deepEqual(
    [options?.kernels, options?.only, options?.jobs, options?.isShellWanted],
    [["6.1", "6.12"], "", 5, false],
  );
});

test("readOptions() refuses kernels, numbers and words that it does not know", () => {
  for (const args of [["--kernel", "5.10"], ["--jobs", "0"], ["--jobs", "many"], ["--nly", "x"], ["x"]]) {
    assert.equal(readOptions(args, 2), undefined, args.join(" "));
  }
  assert.deepEqual(readOptions(["--kernel", "6.1"], 2)?.kernels, ["6.1"]);
});

test("planGuests() boots every topology on each of its kernels, with all of its scenarios", () => {
  const plans = planGuests({ kernels: ["6.1", "6.12"], only: "" });
  const titles = topologies.flatMap((topology) => topology.kernels.map((kernel) => titleOf({ kernel, topology })));
  assert.deepEqual(plans.map(titleOf).toSorted(), titles.toSorted());
  assert.ok(titles.includes("6.12 disk") && !titles.includes("6.1 disk"));
  for (const { topology, scenarios } of plans) assert.deepEqual(scenarios, topology.scenarios);
});

test("planGuests() keeps what the word names, topology or scenario, and boots nothing else", () => {
  const titles = (only: string) =>
    planGuests({ kernels: ["6.12"], only }).map((plan) => [titleOf(plan), plan.scenarios.length]);
  const hub = topologies.find(({ name }) => name === "hub");
  assert.deepEqual(titles("hub"), [["6.12 hub", hub?.scenarios.length]]);
  assert.deepEqual(titles("vfio"), [["6.12 hub", 1]]);
  assert.deepEqual(titles("vfio,no-iommu,kernel"), [
    ["6.12 hub", 2],
    ["6.12 no-iommu", 1],
  ]);
  assert.deepEqual(titles("nothing"), []);
});

test("restOf() leaves to another guest what comes after the scenario that one was cut off in", () => {
  const [plan] = planGuests({ kernels: ["6.12"], only: "hub" });
  assert.ok(plan);
  const { scenarios } = plan;
  assert.deepEqual(restOf(plan, scenarios.slice(0, 2))?.scenarios, scenarios.slice(3));
  assert.deepEqual(restOf(plan, [])?.scenarios, scenarios.slice(1));
  for (const over of [scenarios, scenarios.slice(0, -1)]) assert.equal(restOf(plan, over), undefined);
});
