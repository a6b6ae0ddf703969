import assert from "node:assert/strict";
import test from "node:test";
import { gate, has, knownNeeds, type Need, unknownPromises } from "./needs.ts";

function gated(wants: readonly Need[], has: readonly Need[], promises: string) {
  const skips: (string | undefined)[] = [];
  const t = { skip: (why?: string) => void skips.push(why) };
  return { runs: gate(t, wants, { has: (want) => has.includes(want), promises }), skips };
}

test("has() answers each probe without throwing", () => {
  for (const want of knownNeeds) assert.equal(typeof has(want), "boolean", want);
});

test("needs() lets a test run where everything is there", () => {
  assert.deepEqual(gated(["root", "veth"], ["root", "veth", "go"], ""), { runs: true, skips: [] });
});

test("needs() skips with the names of what is missing, whatever else is promised", () => {
  assert.deepEqual(gated(["root", "veth", "bpf"], ["root"], "root"), { runs: false, skips: ["needs veth, bpf"] });
});

test("needs() fails where the job promised what is missing", () => {
  assert.throws(() => gated(["veth", "bpf"], [], "root, veth"), /This job promises veth, and the machine has it not/);
});

test("needs() fails where the job promises what no test knows", () => {
  assert.throws(() => gated(["veth"], ["veth"], "root, vteh"), /TEST_PROMISES names what no test knows: vteh/);
  assert.deepEqual(unknownPromises(" root,,veth, nothing"), ["nothing"]);
});

test("needs() tells apart what the job says the machine lacks", () => {
  const skips = ["this machine is known to lack vlan"];
  assert.deepEqual(gated(["root", "vlan"], ["root"], "root,-vlan"), { runs: false, skips });
  assert.deepEqual(gated(["veth", "vlan"], [], "root,-vlan"), { runs: false, skips: ["needs veth, vlan"] });
  assert.deepEqual(gated(["vlan"], ["vlan"], "-vlan"), { runs: true, skips: [] });
});
