import assert from "node:assert/strict";
import test from "node:test";
import { systemClock } from "../async/index.ts";
import { Health } from "./health.ts";

function started() {
  let nowMs = 1000;
  const health = new Health({ ...systemClock, now: () => nowMs++ });
  return { health, codes: () => health.conditions().map((condition) => condition.code) };
}

test("Health is ready while no blocking condition is raised", () => {
  const { health } = started();
  const reported: boolean[] = [];
  health.ready.onChange((isReady) => reported.push(isReady));
  const svid = health.condition("svid-missing", "Waiting for the SPIRE agent");
  const vf = health.condition("vf-quarantined");
  vf.raise("0000:3b:02.1 kept its driver", "0000:3b:02.1");
  assert.equal(health.ready.value, false);
  svid.clear();
  svid.clear();
  assert.equal(health.ready.value, true);
  assert.deepEqual(reported, [false, true]);
});

test("Health keeps one condition per subject, with the time it began and the last sentence", () => {
  const { health } = started();
  const vf = health.condition("vf-quarantined");
  vf.raise("first", "a");
  vf.raise("other", "b");
  vf.raise("second", "a");
  const seen = health.conditions().map(({ subject, sentence, sinceMs }) => ({ subject, sentence, sinceMs }));
  assert.deepEqual(seen, [
    { subject: "a", sentence: "second", sinceMs: 1000 },
    { subject: "b", sentence: "other", sinceMs: 1001 },
  ]);
  vf.clear("a");
  assert.equal(health.conditions().length, 1);
});

test("Health shows causes before what they bring about, also through one that is not raised", () => {
  const { health, codes } = started();
  health.condition("not-serving", "No entry in the registry");
  health.condition("vf-withheld", "The host uses it");
  health.condition("svid-missing", "No SVID");
  assert.deepEqual(codes(), ["svid-missing", "not-serving", "vf-withheld"]);
  assert.deepEqual(health.conditions()[1]?.causedBy, ["svid-missing"]);
});

test("Health shows a warning that brings about what blocks before it, and each consequence after its cause", () => {
  const { health, codes } = started();
  health.condition("vf-withheld", "The host uses it");
  health.condition("not-serving", "Starting");
  health.condition("not-registered", "Not registered yet");
  health.condition("svid-expired", "It has expired");
  health.condition("workload-api-lost", "No agent");
  assert.deepEqual(codes(), ["workload-api-lost", "svid-expired", "not-registered", "not-serving", "vf-withheld"]);
  assert.deepEqual(health.conditions()[2]?.causedBy, ["svid-expired", "workload-api-lost"]);
});

test("Health calls back at each change and at nothing else, until it is stopped", () => {
  const { health } = started();
  const reported: number[] = [];
  const stop = health.onChange(() => reported.push(health.conditions().length));
  const vf = health.condition("vf-quarantined");
  vf.raise("first", "a");
  vf.raise("first", "a");
  vf.raise("second", "a");
  vf.clear("b");
  vf.clear("a");
  vf.clear("a");
  assert.deepEqual(reported, [1, 1, 0]);
  stop();
  vf.raise("third", "a");
  assert.equal(reported.length, 3);
});

test("Health calls back when readiness is what it is, not what it was", () => {
  const { health } = started();
  const reported: (boolean | undefined)[] = [];
  health.onChange(() => reported.push(health.ready.value));
  const missing = health.condition("svid-missing", "no answer");
  missing.clear();
  assert.deepEqual(reported, [false, true]);
});

test("Health shows the oldest of equals first, also where it was said in other words since", () => {
  const { health, codes } = started();
  const [later, earlier] = [health.condition("pf-unusable"), health.condition("vf-withheld")];
  earlier.raise("first", "a");
  later.raise("first", "b");
  later.clear("b");
  earlier.raise("again", "a");
  later.raise("second", "c");
  health.condition("pf-without-vfs").raise("third");
  assert.deepEqual(codes(), ["vf-withheld", "pf-unusable", "pf-without-vfs"]);
});
