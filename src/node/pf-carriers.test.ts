import assert from "node:assert/strict";
import { test } from "node:test";
import { type PhysicalFunction, parsePciAddress } from "../pci/index.ts";
import { PfCarriers } from "./pf-carriers.ts";

const address = parsePciAddress("01:00.0");
const [there, away, down] = [
  { up: true, carrier: true },
  { up: true, carrier: false },
  { up: false, carrier: false },
];

const rows = [
  ["watch", [], undefined],
  ["watch", [away], undefined],
  ["watch", [there], undefined],
  ["watch", [there, away], /has no carrier/],
  ["watch", [there, down], /is set down.*ip link set ens1 up/],
  ["watch", [there, away, there], undefined],
  ["require", [], undefined],
  ["require", [away], /has no carrier/],
  ["require", [down], /is set down/],
  ["ignore", [there, away], undefined],
] as const;
for (const [rule, links, problem] of rows) {
  test(`PfCarriers.problemOf() with "${rule}" after ${links.map(({ up, carrier }) => `up ${up} carrier ${carrier}`)}`, () => {
    const carriers = new PfCarriers();
    for (const link of links) carriers.set(address, link);
    const found = carriers.problemOf({ address, ifname: "ens1", entry: { carrier: rule } } as PhysicalFunction);
    if (problem) assert.match(found ?? "", problem);
    else assert.equal(found, undefined);
  });
}

test("PfCarriers.set() answers with a change only, and of() with what the kernel has said", () => {
  const carriers = new PfCarriers();
  assert.equal(carriers.of(address), "unknown");
  const changes = [away, away, there, there, away, down].map((link) => carriers.set(address, link));
  assert.deepEqual(changes, ["none yet", undefined, "there", undefined, "lost", "lost"]);
  assert.equal(carriers.of(address), "down");
  carriers.forget(address);
  assert.equal(carriers.of(address), "unknown");
});
