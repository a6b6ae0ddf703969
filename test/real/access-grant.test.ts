import assert from "node:assert/strict";
import { test } from "node:test";
import { AccessError, type AccessFault } from "../../src/access/index.ts";
import {
  AccessScene,
  eventually,
  needsVersion,
  OTHER_UID,
  POD_UID,
  podPath,
  versions,
} from "../scenes/access-scene.ts";
import { full, REFUSED, random, zero } from "../scenes/pod-cgroups.ts";

const POD = podPath(POD_UID);
const OTHER = podPath(OTHER_UID);

function isFault(kind: AccessFault["kind"]): (error: unknown) => boolean {
  return (error) => error instanceof AccessError && error.fault.kind === kind;
}

for (const version of versions) {
  test(`DeviceGrant.apply() lets the pod's containers open, no others, until revoke(), version ${version}`, async (t) => {
    if (!needsVersion(t, version)) return;
    const scene = new AccessScene(t, version);
    const [one, two, sibling] = [`${POD}/one`, `${POD}/two`, `${OTHER}/one`].map((path) => scene.container(path));
    const before = scene.rulesOf(`${POD}/one`);
    const grant = scene.grant([zero, full]);
    assert.match((await one?.open(zero)) ?? "", REFUSED);
    assert.equal(await grant.isInForce(), false);
    await grant.apply();
    assert.deepEqual([await one?.open(zero), await one?.open(full), await two?.open(full)], ["ok", "ok", "ok"]);
    assert.match((await one?.open(random)) ?? "", REFUSED);
    assert.match((await sibling?.open(zero)) ?? "", REFUSED);
    assert.equal(await grant.isInForce(), true);
    await grant.revoke();
    assert.match((await one?.open(zero)) ?? "", REFUSED);
    assert.match((await two?.open(full)) ?? "", REFUSED);
    assert.equal(await grant.isInForce(), false);
    assert.deepEqual(scene.rulesOf(`${POD}/one`), before);
    await grant.revoke();
  });

  test(`DeviceGrant.apply() writes nothing where all is in force, version ${version}`, async (t) => {
    if (!needsVersion(t, version)) return;
    const scene = new AccessScene(t, version);
    scene.close(`${POD}/one`);
    const grant = scene.grant([zero]);
    await grant.apply();
    const [rules, records] = [scene.rulesOf(`${POD}/one`), scene.records.length];
    await grant.apply();
    assert.deepEqual(scene.rulesOf(`${POD}/one`), rules);
    assert.equal(scene.records.length, records);
    assert.deepEqual(scene.records.at(-1), grant.state);
  });

  test(`DeviceGrant.apply() records the state before it writes, version ${version}`, async (t) => {
    if (!needsVersion(t, version)) return;
    const scene = new AccessScene(t, version);
    scene.close(`${POD}/one`);
    const before = scene.rulesOf(`${POD}/one`);
    const record = () => Promise.reject(new Error("the disk is full"));
    const grant = scene.access.open({
      connectionId: "c1",
      pod: { uid: POD_UID },
      cgroupDir: "",
      devices: [zero],
      record,
    });
    await assert.rejects(grant.apply(), /the disk is full/);
    assert.deepEqual(scene.rulesOf(`${POD}/one`), before);
    grant.letGo();
  });

  test(`DeviceAccess counts grants, and no pod that is only watched, version ${version}`, async (t) => {
    if (!needsVersion(t, version)) return;
    const scene = new AccessScene(t, version);
    scene.close(`${POD}/app`);
    const stop = await scene.access.watch({ uid: POD_UID }, "c9");
    await scene.grant([zero]).apply();
    assert.match(await scene.metrics.text(), /^nsm_sriov_device_grants 1$/m);
    stop();
  });

  test(`DeviceGrant.revoke() leaves what another connection of the pod needs, version ${version}`, async (t) => {
    if (!needsVersion(t, version)) return;
    const scene = new AccessScene(t, version);
    const one = scene.container(`${POD}/one`);
    const before = scene.rulesOf(`${POD}/one`);
    const [first, second] = [scene.grant([zero, full]), scene.grant([zero, random], { id: "c2" })];
    await first.apply();
    await second.apply();
    await first.revoke();
    assert.deepEqual([await one.open(zero), await one.open(random)], ["ok", "ok"]);
    assert.match(await one.open(full), REFUSED);
    assert.equal(await second.isInForce(), true);
    await second.revoke();
    assert.match(await one.open(zero), REFUSED);
    assert.deepEqual(scene.rulesOf(`${POD}/one`), before);
  });

  test(`DeviceGrant.apply() takes the containers that the client names, and those beneath, version ${version}`, async (t) => {
    if (!needsVersion(t, version)) return;
    const scene = new AccessScene(t, version);
    const [named, other] = [scene.container(`${POD}/one`), scene.container(`${POD}/two`)];
    const nested = scene.container(`${POD}/one/init.scope`);
    const grant = scene.grant([zero], { dir: `${POD}/one` });
    await grant.apply();
    assert.deepEqual([await named.open(zero), await nested.open(zero)], ["ok", "ok"]);
    assert.match(await other.open(zero), REFUSED);
    await grant.revoke();
    for (const opener of [named, nested, other]) assert.match(await opener.open(zero), REFUSED);
  });

  test(`DeviceAccess.open() refuses what is not within the pod, version ${version}`, async (t) => {
    if (!needsVersion(t, version)) return;
    const scene = new AccessScene(t, version);
    scene.close(`${POD}/one`);
    scene.close(`${OTHER}/one`);
    const before = scene.rulesOf(`${OTHER}/one`);
    for (const dir of [`${OTHER}/*`, `${OTHER}/one`]) {
      assert.throws(() => scene.grant([zero], { dir }), isFault("foreign-cgroup"));
    }
    for (const dir of [`/${POD}/*`, `${POD}/../pod${OTHER_UID}/*`, "kubepods/burstable/*", "kubepods/*/*", POD, ".."]) {
      assert.throws(() => scene.grant([zero], { dir }), isFault("bad-name"));
    }
    // Well-formed, and another place than the pod's.
    const elsewhere = scene.grant([zero], { dir: `kubepods/besteffort/pod${POD_UID}/*` });
    await assert.rejects(elsewhere.apply(), isFault("foreign-cgroup"));
    await assert.rejects(scene.grant([zero], { dir: `${POD}/three` }).apply(), isFault("no-cgroup"));
    await assert.rejects(scene.grant([zero], { uid: "11111111-aaaa" }).apply(), isFault("no-cgroup"));
    assert.deepEqual(scene.rulesOf(`${OTHER}/one`), before);
  });

  test(`DeviceAccess.open() without a pod takes one that the client names in the strict form, version ${version}`, async (t) => {
    if (!needsVersion(t, version)) return;
    const scene = new AccessScene(t, version);
    const [one, other] = [scene.container(`${POD}/one`), scene.container(`${OTHER}/one`)];
    const request = { connectionId: "c1", pod: undefined, devices: [zero], record: async () => {} };
    assert.throws(() => scene.access.open({ ...request, cgroupDir: "" }), isFault("no-pod"));
    assert.throws(() => scene.access.open({ ...request, cgroupDir: "kubepods/burstable/*/*" }), isFault("bad-name"));
    const grant = scene.access.open({ ...request, cgroupDir: `${POD}/*` });
    await grant.apply();
    assert.equal(await one.open(zero), "ok");
    assert.match(await other.open(zero), REFUSED);
    assert.deepEqual(scene.log.of("access-by-client-cgroup"), [{ connection: "c1", cgroupDir: `${POD}/*` }]);
  });

  test(`DeviceGrant.apply() of a caller who has gone does nothing, version ${version}`, async (t) => {
    if (!needsVersion(t, version)) return;
    const scene = new AccessScene(t, version);
    scene.close(`${POD}/one`);
    const before = scene.rulesOf(`${POD}/one`);
    const grant = scene.grant([zero]);
    await assert.rejects(grant.apply(AbortSignal.abort(new Error("the caller has gone"))), /the caller has gone/);
    assert.deepEqual(scene.rulesOf(`${POD}/one`), before);
  });

  test(`DeviceGrant.revoke() of a pod that has gone has nothing to do, version ${version}`, async (t) => {
    if (!needsVersion(t, version)) return;
    const scene = new AccessScene(t, version);
    scene.close(`${POD}/one`);
    const grant = scene.grant([zero]);
    await grant.apply();
    scene.place.remove(`${POD}/one`);
    scene.place.remove(POD);
    assert.equal(await grant.isInForce(), false);
    await grant.revoke();
    await assert.rejects(grant.apply(), isFault("no-cgroup"));
  });

  test(`DeviceGrant.letGo() leaves the pod what it has, and adopt() takes it back, version ${version}`, async (t) => {
    if (!needsVersion(t, version)) return;
    const scene = new AccessScene(t, version);
    const one = scene.container(`${POD}/one`);
    const before = scene.rulesOf(`${POD}/one`);
    const grant = scene.grant([zero]);
    await grant.apply();
    grant.letGo();
    await scene.access.close();
    assert.equal(await one.open(zero), "ok");
    const later = scene.openAccess(t).adopt(JSON.parse(JSON.stringify(grant.state)), async () => {});
    assert.equal(await later.isInForce(), true);
    await later.revoke();
    assert.match(await one.open(zero), REFUSED);
    assert.deepEqual(scene.rulesOf(`${POD}/one`), before);
  });

  test(`DeviceAccess.adopt() of a second grant of a pod makes sure of it too, version ${version}`, async (t) => {
    if (!needsVersion(t, version)) return;
    const scene = new AccessScene(t, version);
    const one = scene.container(`${POD}/one`);
    await scene.grant([zero]).apply();
    assert.match(await one.open(full), REFUSED);
    const lost = scene.access.adopt({ ...scene.grant([full], { id: "c2" }).state }, async () => {});
    const answer = await eventually(
      () => one.open(full),
      (text) => text === "ok",
    );
    assert.equal(answer, "ok");
    assert.equal(await lost.isInForce(), true);
  });

  test(`DeviceAccess.clearStrays() takes from kubelet's pods what no grant explains, version ${version}`, async (t) => {
    if (!needsVersion(t, version)) return;
    const scene = new AccessScene(t, version);
    scene.close(`${POD}/one`);
    scene.close(`${OTHER}/one`);
    const [before, after] = [scene.rulesOf(`${POD}/one`), scene.rulesOf(`${OTHER}/one`)];
    const [kept, lost] = [scene.grant([zero]), scene.grant([zero, full], { id: "c2", uid: OTHER_UID })];
    await kept.apply();
    await lost.apply();
    const granted = scene.rulesOf(`${POD}/one`);
    await scene.access.close();
    const access = scene.openAccess(t);
    const adopted = access.adopt(kept.state, async () => {});
    const found = await access.clearStrays([zero, full, random], [OTHER_UID]);
    assert.deepEqual(found, [{ cgroup: `${OTHER}/one`, devices: [zero, full] }]);
    assert.deepEqual([scene.rulesOf(`${POD}/one`), scene.rulesOf(`${OTHER}/one`)], [granted, after]);
    await adopted.revoke();
    assert.deepEqual(scene.rulesOf(`${POD}/one`), before);
    assert.deepEqual(await access.clearStrays([zero, full], [OTHER_UID]), []);
  });
}

/** Of another forwarder or another plugin, beneath a path that holds more than this node's pods. */
const FOREIGN_UID = "5c1a0f00-0000-4000-8000-00000000cafe";

for (const version of versions) {
  test(`DeviceAccess.clearStrays() leaves pods that neither journal nor kubelet names, version ${version}`, async (t) => {
    if (!needsVersion(t, version)) return;
    const scene = new AccessScene(t, version);
    const foreign = `other-node/${podPath(FOREIGN_UID)}/one`;
    const [ours, journaled] = [scene.container(`${POD}/one`), scene.container(`${OTHER}/one`)];
    const theirs = scene.container(foreign);
    const closed = scene.rulesOf(`${POD}/one`);
    const kept = scene.grant([zero], { id: "c2", uid: OTHER_UID });
    await kept.apply();
    for (const [id, uid] of [
      ["c1", POD_UID],
      ["c3", FOREIGN_UID],
      ["c4", OTHER_UID],
    ] as const) {
      await scene.grant([zero, full], { id, uid }).apply();
    }
    const given = scene.rulesOf(foreign);
    await scene.access.close();
    const access = scene.openAccess(t);
    // Kubelet names the first pod, the journal the second: of each the rest of what it was given is ours to take.
    const adopted = access.adopt(kept.state, async () => {});
    const found = await access.clearStrays([zero, full], [POD_UID]);
    assert.deepEqual(scene.rulesOf(foreign), given);
    assert.deepEqual([await theirs.open(zero), await theirs.open(full)], ["ok", "ok"]);
    for (const device of [zero, full]) assert.match(await ours.open(device), REFUSED);
    assert.deepEqual(scene.rulesOf(`${POD}/one`), closed);
    assert.equal(await journaled.open(zero), "ok");
    assert.match(await journaled.open(full), REFUSED);
    const left = found.filter(({ problem }) => problem !== undefined);
    assert.deepEqual(
      left.map(({ cgroup, devices }) => ({ cgroup, devices })),
      [{ cgroup: foreign, devices: [zero, full] }],
    );
    assert.match(left[0]?.problem ?? "", /left as it is.*neither the journal nor kubelet.*NSM_CGROUP_PATH/);
    assert.equal(scene.log.of("access-stray").length, 3);
    await adopted.revoke();
  });
}

const systemd = "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod";
for (const { says, path } of [
  { says: "systemd's names", path: `${systemd}${POD_UID.replaceAll("-", "_")}.slice/cri-containerd-4f1c.scope` },
  { says: "a guaranteed pod", path: `kubepods/pod${POD_UID}/4f1c` },
  { says: "a kubelet beneath a root of its own", path: `kubelet/kubepods/besteffort/pod${POD_UID}/4f1c` },
]) {
  test(`DeviceGrant.apply() finds ${says}`, async (t) => {
    if (!needsVersion(t, 2)) return;
    const scene = new AccessScene(t, 2);
    const container = scene.container(path);
    await scene.grant([zero]).apply();
    assert.equal(await container.open(zero), "ok");
  });
}
