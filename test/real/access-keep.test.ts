import assert from "node:assert/strict";
import { test } from "node:test";
import { deviceProgramsOf } from "../../src/kernel/index.ts";
import {
  AccessScene,
  eventually,
  needsVersion,
  OTHER_UID,
  POD_UID,
  podPath,
  versions,
} from "../scenes/access-scene.ts";
import { install, onlyNull, reinstall, runtimeFilter, withHelper } from "../scenes/device-filters.ts";
import { full, type Opener, REFUSED, zero } from "../scenes/pod-cgroups.ts";

const POD = podPath(POD_UID);
const ONE = `${POD}/one`;

/** What the opener says once it may, or at last. */
function openedAtLast(opener: Opener): Promise<string> {
  return eventually(
    () => opener.open(zero),
    (answer) => answer === "ok",
  );
}

for (const version of versions) {
  test(`a container that starts later gets access too, and its sibling does not, version ${version}`, async (t) => {
    if (!needsVersion(t, version)) return;
    const scene = new AccessScene(t, version);
    scene.close(ONE);
    const grant = scene.grant([zero]);
    await grant.apply();
    const [later, sibling] = [scene.container(`${POD}/two`), scene.container(`${podPath(OTHER_UID)}/one`)];
    assert.equal(await openedAtLast(later), "ok");
    assert.match(await sibling.open(zero), REFUSED);
    const nested = scene.container(`${POD}/two/nested`);
    assert.equal(await openedAtLast(nested), "ok");
    await grant.revoke();
    for (const opener of [later, nested]) assert.match(await opener.open(zero), REFUSED);
  });

  test(`a pod with more cgroups than are looked at gets its devices, and is logged once, version ${version}`, async (t) => {
    if (!needsVersion(t, version)) return;
    const scene = new AccessScene(t, version);
    const opener = scene.container(ONE);
    for (let i = 0; i < 260; i++) scene.place.make(`${ONE}/nested-${i}`);
    const [first, second] = [scene.grant([zero]), scene.grant([full], { id: "c2" })];
    for (const grant of [first, second]) await grant.apply();
    assert.deepEqual([await opener.open(zero), await opener.open(full)], ["ok", "ok"]);
    const reported = scene.log.events.filter(({ event }) => event === "access-cgroups-left-out");
    assert.deepEqual(
      reported.map(({ fields }) => fields["visited"]),
      [256],
    );
    for (const grant of [first, second]) await grant.revoke();
    assert.match(await opener.open(zero), REFUSED);
  });

  test(`a container made again under its name gets access again, version ${version}`, async (t) => {
    if (!needsVersion(t, version)) return;
    const scene = new AccessScene(t, version);
    scene.close(ONE);
    const grant = scene.grant([zero]);
    await grant.apply();
    scene.place.remove(ONE);
    const again = scene.container(ONE);
    assert.equal(await openedAtLast(again), "ok");
    await grant.revoke();
    assert.match(await again.open(zero), REFUSED);
  });

  test(`after revoke() and letGo() nothing is kept any more, version ${version}`, async (t) => {
    if (!needsVersion(t, version)) return;
    const scene = new AccessScene(t, version);
    scene.close(ONE);
    const [revoked, left] = [scene.grant([zero]), scene.grant([zero], { id: "c2" })];
    await revoked.apply();
    await revoked.revoke();
    await left.apply();
    left.letGo();
    const later = scene.container(`${POD}/two`);
    // The grant of another pod is kept meanwhile: so many looks have passed when it is in force.
    scene.close(`${podPath(OTHER_UID)}/one`);
    await scene.grant([zero], { id: "c3", uid: OTHER_UID }).apply();
    assert.equal(await openedAtLast(scene.container(`${podPath(OTHER_UID)}/two`)), "ok");
    assert.match(await later.open(zero), REFUSED);
  });
}

test("rules that a runtime writes again are completed again, version 1", async (t) => {
  if (!needsVersion(t, 1)) return;
  const scene = new AccessScene(t, 1);
  const one = scene.container(ONE);
  const grant = scene.grant([zero]);
  await grant.apply();
  for (let update = 0; update < 5; update++) {
    scene.place.makeClosed(ONE);
    assert.equal(await openedAtLast(one), "ok");
    assert.equal(await grant.isInForce(), true);
  }
  assert.ok(scene.log.of("access-repaired").length >= 5);
});

test("a filter that a runtime installs again is completed again, and their number stays, version 2", async (t) => {
  if (!needsVersion(t, 2)) return;
  const scene = new AccessScene(t, 2);
  scene.place.make(ONE);
  const folder = scene.place.folder(ONE);
  install(folder, onlyNull);
  const one = scene.place.start(ONE);
  const grant = scene.grant([zero]);
  await grant.apply();
  for (let update = 0; update < 5; update++) {
    reinstall(
      folder,
      runtimeFilter([
        { major: 1, minor: 3 },
        { major: 200, minor: update },
      ]),
    );
    assert.match(await one.open(zero), REFUSED);
    assert.equal(await openedAtLast(one), "ok");
    assert.equal(deviceProgramsOf(folder.fd).ids.length, 1);
  }
  assert.ok(scene.log.of("access-repaired").length >= 5);
  await grant.revoke();
  assert.equal(deviceProgramsOf(folder.fd).ids.length, 1);
});

test("a filter that systemd adds at daemon-reload takes the place of its former one, version 2", async (t) => {
  if (!needsVersion(t, 2)) return;
  const scene = new AccessScene(t, 2);
  scene.place.make(ONE);
  const folder = scene.place.folder(ONE);
  const other = runtimeFilter([
    { major: 1, minor: 3 },
    { major: 200, minor: 1 },
  ]);
  install(folder, onlyNull, { name: "sd_devices" });
  install(folder, other);
  const one = scene.place.start(ONE);
  const grant = scene.grant([zero]);
  await grant.apply();
  for (let reload = 0; reload < 5; reload++) {
    // It cannot find the program that it attached before: ours is in its place.
    install(folder, onlyNull, { name: "sd_devices" });
    assert.match(await one.open(zero), REFUSED);
    assert.equal(await openedAtLast(one), "ok");
    assert.equal(deviceProgramsOf(folder.fd).ids.length, 2);
  }
  await grant.revoke();
  assert.match(await one.open(zero), REFUSED);
  assert.equal(deviceProgramsOf(folder.fd).ids.length, 2);
});

test("a filter that comes to a pod without any is completed, version 2", async (t) => {
  if (!needsVersion(t, 2)) return;
  const scene = new AccessScene(t, 2);
  scene.place.make(ONE);
  const one = scene.place.start(ONE);
  await scene.grant([zero, full]).apply();
  install(scene.place.folder(ONE), onlyNull);
  assert.match(await one.open(zero), REFUSED);
  assert.equal(await openedAtLast(one), "ok");
});

test("DeviceGrant.isInForce() reads the kernel, and sees a filter that was installed again", async (t) => {
  if (!needsVersion(t, 2)) return;
  const scene = new AccessScene(t, 2);
  scene.place.make(ONE);
  const folder = scene.place.folder(ONE);
  install(folder, onlyNull);
  const grant = scene.grant([zero]);
  await grant.apply();
  reinstall(folder, onlyNull);
  assert.equal(await grant.isInForce(), false);
});

test("a filter that comes later and cannot be added to is logged once, and revoke() still proves", async (t) => {
  if (!needsVersion(t, 2)) return;
  const scene = new AccessScene(t, 2);
  scene.close(ONE);
  const grant = scene.grant([zero]);
  await grant.apply();
  install(scene.place.folder(ONE), withHelper, { name: "guard" });
  const reported = await eventually(
    async () => scene.log.of("access-not-kept"),
    (found) => found.length > 0,
  );
  assert.match(String(reported[0]?.["error"]), /filter \d+ \(guard\) of cgroup .*helper/);
  await grant.revoke();
  assert.equal(scene.log.of("access-not-kept").length, 1);
});

for (const version of versions) {
  test(`onPodGone() reports each kept grant of a pod whose cgroup has gone, once, on version ${version}`, async (t) => {
    if (!needsVersion(t, version)) return;
    const scene = new AccessScene(t, version);
    const app = `${podPath(POD_UID)}/app`;
    scene.close(app);
    scene.close(`${podPath(OTHER_UID)}/app`);
    const kept = scene.grant([zero]);
    await kept.apply();
    await scene.grant([zero], { id: "c2", uid: OTHER_UID }).apply();
    const gone: string[] = [];
    const stop = scene.access.onPodGone((id) => gone.push(id));
    scene.place.remove(app);
    scene.place.remove(podPath(POD_UID));
    assert.deepEqual(
      await eventually(
        async () => [...gone],
        ({ length }) => length > 0,
      ),
      ["c1"],
    );
    stop();
    // A listener that comes after the end of a pod hears of it, too: at a start the pods are found before the service listens.
    const late: string[] = [];
    scene.access.onPodGone((id) => late.push(id));
    assert.deepEqual(
      await eventually(
        async () => [...late],
        ({ length }) => length > 0,
      ),
      ["c1"],
    );
    await kept.revoke();
    assert.deepEqual([gone, late], [["c1"], ["c1"]]);
  });
}
