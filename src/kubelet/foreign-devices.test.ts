import assert from "node:assert/strict";
import { test } from "node:test";
import { ForeignDevices } from "./foreign-devices.ts";

const listOf = (...ids: readonly string[]) => new Map([["d.e/c", new Set(ids)]]);

test("ForeignDevices counts answers with devices that were never ours, and begins again without", () => {
  let own = ["a", "b"];
  const devices = () =>
    own.map((id) => ({ id, healthy: true, allocated: false, numaNode: undefined, address: undefined }));
  const foreign = new ForeignDevices({ resources: () => ["d.e/c"], devices });
  const after = (...answers: readonly Parameters<ForeignDevices["observe"]>[0][]) => {
    for (const answer of answers) foreign.observe(answer);
    return foreign.streak("d.e/c");
  };
  assert.equal(after(), 0);
  assert.equal(after(listOf(), listOf("a"), listOf("a", "b"), new Map()), 0);
  assert.equal(after(listOf("a", "x"), listOf("x")), 2);
  assert.equal(after(listOf("a")), 0);
  own = ["c"];
  assert.equal(after(listOf("a", "c")), 0, "kubelet has not heard of the new list yet");
  assert.equal(after(listOf("x"), undefined), 0, "nothing is known of a kubelet that does not say");
  assert.equal(foreign.streak("other.example/c"), 0);
});
