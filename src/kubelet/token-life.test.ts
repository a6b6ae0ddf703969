import assert from "node:assert/strict";
import { test } from "node:test";
import type { Checkpoint } from "./checkpoint.ts";
import type { PodHoldings } from "./pod-resources.ts";
import { TokenLife } from "./token-life.ts";

const GRACE_MS = 60;
const RESOURCE = "worker.domain/10G";
const holder = { podUid: "uid", container: "app", resource: RESOURCE };
/** Kubelet's file names no pod of ours. */
const EMPTY: Checkpoint = new Map();
const NAMED: Checkpoint = new Map([["t1", holder]]);

/** "pod: ids" for each pod, for example "web: t1 t2" or "web:". */
function listed(...pods: readonly string[]): PodHoldings {
  const devices = new Map<string, { resource: string; pod: string; container: string }>();
  const names = pods.map((text) => {
    const [pod = "", ids = ""] = text.split(":");
    for (const id of ids.split(" ")) if (id !== "") devices.set(id, { resource: RESOURCE, pod, container: "app" });
    return pod;
  });
  return { pods: new Set(names), devices };
}

interface Step {
  readonly at: number;
  readonly pods: PodHoldings;
  readonly checkpoint?: Checkpoint;
  readonly connections?: ReadonlyMap<string, string>;
}

/** What the last step frees. */
function freedAfter(life: TokenLife, steps: readonly Step[]) {
  const found = steps.map(({ at, pods, checkpoint, connections = new Map() }) =>
    life.observe({ holdings: pods, checkpoint, connections, queriedMs: at, answeredMs: at }),
  );
  const earlier = found.slice(0, -1).flatMap(({ freed }) => freed);
  assert.deepEqual(earlier, [], "freed too early");
  return found.at(-1)?.freed.map(({ id }) => id);
}

const other = listed("other:");
const rows: readonly (readonly [name: string, steps: readonly Step[], freed: readonly string[]])[] = [
  ["a pod that is being created keeps its id for the grace", [step(0, other), step(59, other)], []],
  ["an id that no pod ever had is free after the grace", [step(0, other), step(59, other), step(60, other)], ["t1"]],
  ["many looks within the grace free nothing", [0, 1, 2, 3, 4, 5, 6].map((at) => step(at, other)), []],
  ["a listed id is kept for ever", [step(0, listed("web:t1")), step(9e9, listed("web:t1"))], []],
  ["an id is free after its pod", [step(0, listed("web:t1")), step(10, other), step(70, other)], ["t1"]],
  ["a pod that is back has never gone", [step(0, other), step(50, listed("web:t1")), step(90, other)], []],
  ["an init container is in the checkpoint alone", [0, 60, 600].map((at) => step(at, listed("web:"), NAMED)), []],
  [
    "an old checkpoint does not keep the id of a pod that has gone",
    [step(0, listed("web:t1"), NAMED), step(10, other, NAMED), step(70, other, NAMED)],
    ["t1"],
  ],
  [
    "a pod that is listed without devices keeps its id",
    [step(0, listed("web:t1")), step(10, listed("web:")), step(700, listed("web:"))],
    [],
  ],
  [
    "a pod that has ended and is still listed keeps its id until kubelet writes its file",
    [
      step(0, listed("web:t1"), NAMED),
      step(10, listed("web:"), NAMED),
      step(100, listed("web:"), EMPTY),
      step(160, listed("web:"), EMPTY),
    ],
    ["t1"],
  ],
  [
    "a later pod of the same name has another id",
    [step(0, listed("web:t1")), step(10, listed("web:t2")), step(70, listed("web:t2"))],
    ["t1"],
  ],
];

function step(at: number, pods: PodHoldings, checkpoint?: Checkpoint): Step {
  return checkpoint ? { at, pods, checkpoint } : { at, pods };
}

for (const [name, steps, freed] of rows) {
  test(`TokenLife.observe(): ${name}`, () => {
    const life = new TokenLife(GRACE_MS);
    life.allocated("t1", RESOURCE);
    assert.deepEqual(freedAfter(life, steps), freed);
  });
}

test("TokenLife.observe() counts from when the last was answered to when the first was queried", () => {
  const life = new TokenLife(GRACE_MS);
  life.allocated("t1", RESOURCE);
  const sight = (queriedMs: number, answeredMs: number) =>
    life.observe({ holdings: other, checkpoint: undefined, connections: new Map(), queriedMs, answeredMs }).freed
      .length;
  assert.equal(sight(0, 10), 0);
  assert.equal(sight(69, 80), 0, "an Allocate may have come while it was asked");
  assert.equal(sight(70, 80), 1);
});

for (const [says, ids, freed] of [
  ["another resource alone keeps it", [["x1", "worker.domain/1G"]], []],
  [
    "the resource and another one has another id",
    [
      ["t2", RESOURCE],
      ["x1", "worker.domain/1G"],
    ],
    ["t1"],
  ],
] as const) {
  test(`TokenLife.observe(): a pod that is listed with ${says}`, () => {
    const life = new TokenLife(GRACE_MS);
    life.allocated("t1", RESOURCE);
    const devices = new Map(ids.map(([id, resource]) => [id, { resource, pod: "web", container: "app" }]));
    const later = { pods: new Set(["web"]), devices };
    assert.deepEqual(freedAfter(life, [step(0, listed("web:t1")), step(10, later), step(700, later)]), freed);
  });
}

test("TokenLife.doubt() forgets no pod", () => {
  const life = new TokenLife(GRACE_MS);
  life.allocated("t1", RESOURCE);
  life.observe({
    holdings: listed("web:t1"),
    checkpoint: undefined,
    connections: new Map(),
    queriedMs: 0,
    answeredMs: 0,
  });
  life.doubt();
  assert.deepEqual(freedAfter(life, [step(10, listed("web:")), step(700, listed("web:"))]), []);
});

test("TokenLife.doubt() lets the grace begin again", () => {
  const life = new TokenLife(GRACE_MS);
  life.allocated("t1", RESOURCE);
  assert.deepEqual(freedAfter(life, [step(0, other)]), []);
  life.doubt();
  assert.deepEqual(freedAfter(life, [step(60, other), step(119, other)]), []);
  assert.deepEqual(freedAfter(life, [step(120, other)]), ["t1"]);
  assert.equal(life.size, 0);
});

test("TokenLife.allocated() makes void what was known of an earlier pod", () => {
  const life = new TokenLife(GRACE_MS);
  assert.deepEqual(freedAfter(life, [step(0, listed("web:t1")), step(10, other)]), []);
  life.allocated("t1", RESOURCE);
  assert.deepEqual(freedAfter(life, [step(70, other, NAMED), step(700, other, NAMED)]), []);
});

test("TokenLife.observe() reports ids that a previous instance gave out, once", () => {
  const life = new TokenLife(GRACE_MS);
  const sight = {
    holdings: listed("web:t1"),
    checkpoint: undefined,
    connections: new Map(),
    queriedMs: 0,
    answeredMs: 0,
  };
  assert.deepEqual(life.observe(sight).adopted, [{ id: "t1", resource: RESOURCE }]);
  assert.deepEqual(life.observe(sight), { adopted: [], freed: [] });
});

test("TokenLife.observe() names the connection that a dead pod has left behind, also one it never heard of", () => {
  const life = new TokenLife(GRACE_MS);
  const connections = new Map([["t1", "connection-1"]]);
  const sight = { holdings: other, checkpoint: undefined, connections, queriedMs: 0, answeredMs: 0 };
  assert.deepEqual(life.observe(sight), { adopted: [], freed: [] });
  const freed = [{ id: "t1", connectionId: "connection-1" }];
  assert.deepEqual(life.observe({ ...sight, queriedMs: GRACE_MS, answeredMs: GRACE_MS }), { adopted: [], freed });
});
