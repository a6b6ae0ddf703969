import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { type DeviceAccess, type GrantState, openDeviceAccess } from "../../src/access/index.ts";
import { systemClock } from "../../src/async/index.ts";
import { type DeviceNumber, deviceProgramsOf } from "../../src/kernel/index.ts";
import { createMetrics, silentLog } from "../../src/telemetry/index.ts";
import { install, nothing } from "../device-filters.ts";
import { needs } from "../needs.ts";
import { CgroupPlace, full, REFUSED, zero } from "../pod-cgroups.ts";

const UID = "0f3b7c1e-9d5a-4c61-8a3e-2b1f6d7e8c90";

function openAccess(t: TestContext, place: CgroupPlace): DeviceAccess {
  const access = openDeviceAccess({
    cgroupPath: place.path,
    clock: systemClock,
    log: silentLog,
    metrics: createMetrics(),
  });
  t.after(() => access.close());
  return access;
}

function ask(devices: readonly DeviceNumber[], states: GrantState[] = []) {
  const record = async (state: GrantState) => void states.push(state);
  return { connectionId: "c1", pod: { uid: UID }, cgroupDir: "", devices, record };
}

const POD = `kubepods/burstable/pod${UID}`;

test("DeviceGrant (1) opens for the pod and closes again", async (t) => {
  if (!needs(t, "root", "cgroup1-devices", "mknod")) return;
  const place = new CgroupPlace(t, 1);
  place.makeClosed(`${POD}/one`);
  const one = place.start(`${POD}/one`);
  const access = openAccess(t, place);
  const states: GrantState[] = [];
  const grant = access.open(ask([zero, full], states));
  assert.match(await one.open(zero), REFUSED);
  await grant.apply();
  assert.equal(await one.open(zero), "ok");
  assert.equal(await grant.stands(), true);
  await grant.revoke();
  assert.match(await one.open(zero), REFUSED);
});

test("DeviceGrant (2) opens for the pod and closes again", async (t) => {
  if (!needs(t, "root", "cgroup2", "bpf", "mknod")) return;
  const place = new CgroupPlace(t, 2);
  place.make(`${POD}/one`);
  const folder = place.folder(`${POD}/one`);
  install(folder, nothing);
  const one = place.start(`${POD}/one`);
  const access = openAccess(t, place);
  const grant = access.open(ask([zero, full]));
  assert.match(await one.open(zero), REFUSED);
  await grant.apply();
  assert.equal(await one.open(zero), "ok");
  assert.equal(await one.open(full), "ok");
  assert.equal(await grant.stands(), true);
  await grant.revoke();
  assert.match(await one.open(zero), REFUSED);
  assert.equal(deviceProgramsOf(folder.fd).ids.length, 1);
});
