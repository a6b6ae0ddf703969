import assert from "node:assert/strict";
import { test } from "node:test";
import { FairList } from "./fair-order.ts";

const named = (registrant: string, name: string, bytes: number) => ({ registrant, name, bytes });

function listOf(limits: { readonly entries: number; readonly bytes: number }) {
  const list = new FairList<ReturnType<typeof named>>(limits);
  return { list, names: () => list.entries.map(({ name }) => name) };
}

test("FairList keeps what has room in its bytes, and the registrant with most gives way with its latest", () => {
  const { list, names } = listOf({ entries: 10, bytes: 100 });
  list.add(named("evil", "e1", 40));
  list.add(named("evil", "e2", 40));
  list.add(named("nse", "n1", 10));
  list.add(named("nse", "n2", 10));
  assert.deepEqual(names(), ["e1", "e2", "n1", "n2"], "it has room for just so many");
  list.add(named("nse", "n3", 10));
  assert.deepEqual(names(), ["e1", "n1", "n2", "n3"]);
  list.add(named("third", "t1", 35));
  assert.deepEqual(names(), ["n1", "n2", "n3", "t1"], "not the one with most entries");
  list.add(named("third", "t1", 20));
  list.remove("n1");
  list.add(named("evil", "e3", 60));
  assert.deepEqual(names(), ["n2", "n3", "t1", "e3"], "what is replaced or removed counts no more");
  list.add(named("late", "l1", 101));
  assert.deepEqual(names(), ["n2", "n3", "t1", "e3"], "what is too large by itself gives way itself");
});

test("FairList keeps so many entries, and the registrant with most of them gives way", () => {
  const { list, names } = listOf({ entries: 3, bytes: 100 });
  for (const name of ["e1", "e2", "e3"]) list.add(named("evil", name, 1));
  list.add(named("nse", "n1", 50));
  list.add(named("nse", "n2", 1));
  assert.deepEqual(names(), ["e1", "e2", "n1"], "the newcomer's where both have as many");
});

test("FairList counts no more of a registrant than it has, and drops as many as it takes", () => {
  const { list, names } = listOf({ entries: 10, bytes: 60 });
  for (const [name, bytes] of [
    ["e1", 50],
    ["e2", 10],
  ] as const)
    list.add(named("evil", name, bytes));
  list.remove("e1");
  list.add(named("nse", "n1", 40));
  list.add(named("third", "t1", 20));
  assert.deepEqual(names(), ["e2", "t1"], "what was removed is not the registrant's any more");
  for (const name of ["t2", "t3", "t4"]) list.add(named("third", name, 10));
  list.add(named("late", "l1", 20));
  assert.deepEqual(names(), ["e2", "t1", "t2", "l1"]);
});

test("FairList lets the newcomer's registrant give way to one that came later and has as many", () => {
  const { list, names } = listOf({ entries: 3, bytes: 100 });
  for (const [registrant, name] of [
    ["nse", "n1"],
    ["evil", "e1"],
    ["evil", "e2"],
    ["nse", "n2"],
  ] as const) {
    list.add(named(registrant, name, 1));
  }
  assert.deepEqual(names(), ["n1", "e1", "e2"]);
});
