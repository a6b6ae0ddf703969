import assert from "node:assert/strict";
import { test } from "node:test";
import { parsePciAddress } from "../pci/index.ts";
import { type Placement, preferredAllocation } from "./preferred-allocation.ts";

/** "a1.0/3" lies on physical function a, NUMA node 0, in IOMMU group 3; the digit after the letter distinguishes ids. */
function placementOf(id: string): Placement | undefined {
  const match = /^([a-f])\d\.(\d)(?:\/(\d+))?$/.exec(id);
  if (!match) return undefined;
  const [, pf, node, group] = match;
  return {
    pf: parsePciAddress(`0${pf}:00.0`),
    numaNode: Number(node),
    iommuGroup: group === undefined ? undefined : Number(group),
  };
}

const rows = [
  { says: "keeps to one NUMA node", available: "a1.0 b1.1 b2.1", size: 2, out: "b1.1 b2.1" },
  { says: "spreads over physical functions", available: "a1.0 a2.0 a3.0 b1.0", size: 2, out: "a1.0 b1.0" },
  { says: "leaves the fuller node whole", available: "a1.0 a2.0 a3.0 b1.1", size: 1, out: "b1.1" },
  { says: "follows what must be included", available: "a1.0 a2.0 b1.1 b2.1", must: "b1.1", size: 2, out: "b1.1 b2.1" },
  {
    says: "takes a whole IOMMU group before a part of another",
    available: "a1.0/1 a2.0/1 b1.0/2",
    size: 2,
    out: "b1.0/2 a1.0/1",
  },
  {
    says: "prefers a begun group to another physical function",
    available: "a2.0/1 b1.0/2",
    must: "a1.0/1",
    size: 2,
    out: "a1.0/1 a2.0/1",
  },
  {
    says: "follows the node of what must be included, however little is left there",
    available: "a1.0 a2.0 b1.1 c1.0",
    must: "d1.1",
    size: 3,
    out: "d1.1 b1.1 a1.0",
  },
  {
    says: "fills up from a second node when one has too few",
    available: "a1.0 b1.0 c1.1",
    size: 3,
    out: "a1.0 b1.0 c1.1",
  },
  {
    says: "continues with the group it has begun",
    available: "a1.0/1 b1.0/2 b2.0/2 c1.0/3 c2.0/3 d1.0/4",
    size: 4,
    out: "a1.0/1 d1.0/4 b1.0/2 b2.0/2",
  },
  {
    says: "counts an id once that is asked for twice",
    available: "a1.0 a1.0 b1.0",
    must: "c1.0 c1.0",
    size: 2,
    out: "c1.0 a1.0",
  },
  {
    says: "counts what must be included and is available too once",
    available: "a1.0 b1.0",
    must: "a1.0",
    size: 2,
    out: "a1.0 b1.0",
  },
  {
    says: "chooses the node by what is wanted beside what must be included",
    available: "a1.0 b1.0 c1.1 d1.1 e1.1",
    must: "f1.2",
    size: 3,
    out: "f1.2 a1.0 b1.0",
  },
  {
    says: "chooses the node by what is wanted, also where what must be included is available",
    available: "c1.1 d1.1 e1.1 a1.0 b1.0 f1.2",
    must: "f1.2",
    size: 3,
    out: "f1.2 a1.0 b1.0",
  },
  {
    says: "continues with the group of which least is left by then",
    available: "a2.0/1 a3.0/1 b2.0/2 c1.0/2 d1.0/2",
    must: "a1.0/1 b1.0/2",
    size: 5,
    out: "a1.0/1 b1.0/2 c1.0/2 d1.0/2 b2.0/2",
  },
  { says: "gives none where none is wanted", available: "a1.0", size: 0, out: "" },
  { says: "gives what there is", available: "a1.0", size: 3, out: "a1.0" },
  { says: "takes unknown ids last", available: "sriov-x a1.0", size: 2, out: "a1.0 sriov-x" },
  { says: "never gives fewer than what must be included", available: "", must: "a1.0 b1.0", size: 1, out: "a1.0 b1.0" },
];
const words = (text = "") => text.split(" ").filter(Boolean);
for (const { says, available, must, size, out } of rows) {
  test(`preferredAllocation() ${says}`, () => {
    const request = { available: words(available), mustInclude: words(must), size };
    assert.deepEqual(preferredAllocation(request, placementOf), words(out));
  });
}
