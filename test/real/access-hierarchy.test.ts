import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { type TestContext, test } from "node:test";
import { AccessError, type DeviceAccess, openDeviceAccess } from "../../src/access/index.ts";
import { systemClock } from "../../src/async/index.ts";
import { createMetrics, silentLog } from "../../src/telemetry/index.ts";
import { needs } from "../needs.ts";
import { CgroupPlace } from "../scenes/pod-cgroups.ts";

function open(t: TestContext, cgroupPath: string): DeviceAccess {
  const access = openDeviceAccess({ cgroupPath, clock: systemClock, log: silentLog, metrics: createMetrics() });
  t.after(() => access.close());
  return access;
}

test("openDeviceAccess() takes the version 1 hierarchy at its path", (t) => {
  if (!needs(t, "root", "cgroup1-devices")) return;
  assert.equal(open(t, dirname(new CgroupPlace(t, 1).path)).version, 1);
});

test("openDeviceAccess() takes the mount that would hold the path, as on a unified host", (t) => {
  if (!needs(t, "root", "cgroup2")) return;
  const mount = dirname(new CgroupPlace(t, 2).path);
  assert.equal(open(t, join(mount, "devices")).version, 2);
  assert.equal(open(t, mount).version, 2);
});

test("openDeviceAccess() says where it looked in vain", (t) => {
  const folder = mkdtempSync(join(tmpdir(), "no-cgroups-"));
  t.after(() => rmSync(folder, { recursive: true }));
  const path = join(folder, "sys/fs/cgroup/devices");
  assert.throws(
    () => open(t, path),
    (error) => error instanceof AccessError && error.fault.kind === "no-hierarchy" && error.message.includes(path),
  );
});
