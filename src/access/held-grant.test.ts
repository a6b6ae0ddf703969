import assert from "node:assert/strict";
import { test } from "node:test";
import type { GrantRequest, GrantState, WrittenRule } from "./grant.ts";
import { HeldGrant } from "./held-grant.ts";

const UID = "0f3b7c1e-9d5a-4c61-8a3e-2b1f6d7e8c90";
const POD = `kubepods/burstable/pod${UID}`;
const device = { major: 245, minor: 7 };
const ruleOf = (cgroup: string, access = "rw"): WrittenRule => ({ cgroup, access, ...device });

function grantOf(request: Partial<GrantRequest> = {}) {
  const states: GrantState[] = [];
  const recording = { failure: undefined as Error | undefined };
  const record = async (state: GrantState) => {
    if (recording.failure) throw recording.failure;
    states.push(state);
  };
  const grant = HeldGrant.ofRequest({
    connectionId: "c1",
    pod: { uid: UID },
    cgroupDir: "",
    devices: [device],
    record,
    ...request,
  });
  return { grant, states, recording };
}

test("HeldGrant.ofRequest() means all containers of the pod where the client names no cgroup, and refuses where it names none of it", () => {
  const { state, isKept } = grantOf().grant;
  assert.deepEqual(state, { connectionId: "c1", podUid: UID, containers: "*", devices: [device], wrote: [] });
  assert.equal(isKept, false);
  const named = grantOf({ cgroupDir: `${POD}/app` }).grant;
  assert.deepEqual([named.state.podUid, named.state.containers, named.seenPodPath], [UID, "app", POD]);
  assert.equal(grantOf({ pod: undefined, cgroupDir: `${POD}/app` }).grant.state.podUid, UID);
  assert.throws(() => grantOf({ pod: undefined }), { fault: { kind: "no-pod" } });
  const other = { uid: UID.replace("0f", "1f") };
  const foreign = { fault: { kind: "foreign-cgroup", text: `${POD}/app`, pod: other.uid } };
  assert.throws(() => grantOf({ pod: other, cgroupDir: `${POD}/app` }), foreign);
});

test("HeldGrant.intend() records before the first write and each further rule, and the same rule once", async () => {
  const { grant, states } = grantOf();
  await grant.intend([]);
  assert.equal(states.length, 1, "version 2 has no rules, and is recorded all the same");
  await grant.intend([]);
  await grant.intend([ruleOf(POD)]);
  await grant.intend([ruleOf(POD), ruleOf(`${POD}/app`)]);
  await grant.intend([ruleOf(POD)]);
  const wrote = states.map((state) => state.wrote.length);
  assert.deepEqual(
    [wrote, grant.state.wrote],
    [
      [0, 1, 2],
      [ruleOf(POD), ruleOf(`${POD}/app`)],
    ],
  );
  await grant.intend([ruleOf(POD, "r"), { ...ruleOf(POD), minor: 8 }]);
  assert.equal(grant.state.wrote.length, 4);
});

test("HeldGrant.intend() that could not record tries again before the next write", async () => {
  const { grant, states, recording } = grantOf();
  recording.failure = new Error("the disk is full");
  await assert.rejects(grant.intend([]), recording.failure);
  recording.failure = undefined;
  await grant.intend([]);
  assert.equal(states.length, 1);
});

test("HeldGrant.ofState() is kept, and recorded already", async () => {
  const { grant, states } = grantOf();
  await grant.intend([ruleOf(POD)]);
  const again: GrantState[] = [];
  const adopted = HeldGrant.ofState(states[0] ?? assert.fail(), async (state) => void again.push(state));
  await adopted.intend([ruleOf(POD)]);
  assert.deepEqual([adopted.isKept, adopted.state, again], [true, states[0], []]);
});

test("HeldGrant.wroteInto() finds rules of the cgroup and of those above, by whole names", async () => {
  const { grant } = grantOf();
  await grant.intend([ruleOf(POD), ruleOf(`${POD}/app`), ruleOf(`${POD}/app2`)]);
  const into = (path: string) => grant.wroteInto({ path, folder: {} as never }).map(({ cgroup }) => cgroup);
  assert.deepEqual(into(`${POD}/app`), [POD, `${POD}/app`]);
  assert.deepEqual(into(POD), [POD]);
  assert.deepEqual(into(`${POD}/app2/inner`), [POD, `${POD}/app2`]);
});

test("HeldGrant.wants() compares both numbers of a device", () => {
  const { grant } = grantOf();
  const { major, minor } = device;
  const wants = [device, { major, minor: 8 }, { major: 10, minor }].map((one) => grant.wants(one));
  assert.deepEqual(wants, [true, false, false]);
});

test("HeldGrant.handOver() gives each rule to its heir, who has recorded it before this one forgets it", async () => {
  const { grant, states } = grantOf();
  const heir = grantOf({ connectionId: "c2" });
  await grant.intend([ruleOf(POD), ruleOf(`${POD}/app`)]);
  await grant.handOver(() => undefined);
  assert.equal(states.length, 1, "nothing has changed");
  const toHeir = ({ cgroup }: WrittenRule) => (cgroup === POD ? heir.grant : undefined);
  heir.recording.failure = new Error("the disk is full");
  await assert.rejects(grant.handOver(toHeir), heir.recording.failure);
  assert.equal(grant.state.wrote.length, 2, "it can be taken back still");
  heir.recording.failure = undefined;
  await grant.handOver(toHeir);
  assert.deepEqual(states.at(-1)?.wrote, [ruleOf(`${POD}/app`)]);
  assert.deepEqual(grant.state.wrote, states.at(-1)?.wrote);
  assert.deepEqual(heir.grant.state.wrote, [ruleOf(POD)]);
});
