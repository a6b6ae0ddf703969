import assert from "node:assert/strict";
import { test } from "node:test";
import { encodeBlock, joinProgram } from "../../src/access/bpf/allow-block.ts";
import { instruction, Op } from "../../src/access/bpf/instruction.ts";
import { AccessError, type AccessFault } from "../../src/access/index.ts";
import {
  AttachFlag,
  bpf,
  type CgroupFolder,
  deviceProgramsOf,
  Fd,
  offHeap,
  openProgram,
} from "../../src/kernel/index.ts";
import { AccessScene, needsVersion, POD_UID, podPath } from "../scenes/access-scene.ts";
import { crunFilter } from "../scenes/captured-filters.ts";
import {
  codeOf,
  detach,
  install,
  installByLink,
  onlyNull,
  putInFront,
  runtimeFilter,
  withHelper,
  withMap,
} from "../scenes/device-filters.ts";
import { full, REFUSED, zero } from "../scenes/pod-cgroups.ts";

const POD = podPath(POD_UID);
const ONE = `${POD}/one`;

function faultOf(kind: AccessFault["kind"], problem: RegExp): (error: unknown) => boolean {
  return (error) => error instanceof AccessError && error.fault.kind === kind && problem.test(error.message);
}

/** A container whose only filters are those that the test installs. */
function bare(scene: AccessScene): CgroupFolder {
  scene.place.make(ONE);
  return scene.place.folder(ONE);
}

test("a filter of crun gets our block in front, and is the same afterwards", async (t) => {
  if (!needsVersion(t, 2)) return;
  const scene = new AccessScene(t, 2);
  const folder = bare(scene);
  const id = install(folder, crunFilter, { name: "crun" });
  const one = scene.place.start(ONE);
  const grant = scene.grant([zero, { major: 245, minor: 3 }]);
  const original = codeOf(id);
  assert.equal(await one.open(zero), "ok", "crun lets every container have it");
  await grant.apply();
  const [ours = 0] = deviceProgramsOf(folder.fd).ids;
  // Only what crun's own rules do not allow.
  const block = encodeBlock({ devices: [{ major: 245, minor: 3 }], originalId: id });
  assert.equal(codeOf(ours).length, original.length + block.length * 16);
  assert.ok(codeOf(ours).endsWith(original));
  await grant.revoke();
  assert.deepEqual(scene.rulesOf(ONE), [original]);
});

test("ten filters, one behind the other, all get our block, and all lose it", async (t) => {
  if (!needsVersion(t, 2)) return;
  const scene = new AccessScene(t, 2);
  const folder = bare(scene);
  for (let i = 0; i < 10; i++)
    install(
      folder,
      runtimeFilter([
        { major: 1, minor: 3 },
        { major: 200, minor: i },
      ]),
    );
  const before = scene.rulesOf(ONE);
  const one = scene.place.start(ONE);
  const grant = scene.grant([zero, full]);
  await grant.apply();
  assert.equal(await one.open(full), "ok");
  assert.equal(deviceProgramsOf(folder.fd).ids.length, 10);
  await grant.revoke();
  assert.match(await one.open(full), REFUSED);
  assert.deepEqual(scene.rulesOf(ONE), before);
});

test("the very program of before comes back where its maker still holds it", async (t) => {
  if (!needsVersion(t, 2)) return;
  const scene = new AccessScene(t, 2);
  const folder = bare(scene);
  const id = install(folder, onlyNull, { name: "sd_devices" });
  const held = openProgram(id);
  try {
    const grant = scene.grant([zero]);
    await grant.apply();
    assert.notDeepEqual(deviceProgramsOf(folder.fd).ids, [id]);
    await grant.revoke();
    assert.deepEqual(deviceProgramsOf(folder.fd).ids, [id]);
  } finally {
    held.close();
  }
});

for (const { says, flags } of [
  { says: "alone", flags: 0 },
  { says: "to be overridden", flags: AttachFlag.OVERRIDE },
]) {
  test(`a filter attached ${says} is replaced in its place, and that is said`, async (t) => {
    if (!needsVersion(t, 2)) return;
    const scene = new AccessScene(t, 2);
    const folder = bare(scene);
    install(folder, onlyNull, { flags });
    const before = scene.rulesOf(ONE);
    const one = scene.place.start(ONE);
    const grant = scene.grant([zero]);
    await grant.apply();
    assert.equal(await one.open(zero), "ok");
    assert.deepEqual(scene.log.of("access-single-filter"), [{ cgroup: ONE, attached: says }]);
    assert.equal(deviceProgramsOf(folder.fd).flags, flags);
    await grant.revoke();
    assert.match(await one.open(zero), REFUSED);
    assert.deepEqual(scene.rulesOf(ONE), before);
  });
}

test("a pod without filters needs none, and gets none", async (t) => {
  if (!needsVersion(t, 2)) return;
  const scene = new AccessScene(t, 2);
  const folder = bare(scene);
  const one = scene.place.start(ONE);
  const grant = scene.grant([zero]);
  await grant.apply();
  assert.equal(await one.open(zero), "ok");
  assert.equal(await grant.isInForce(), true);
  assert.deepEqual(deviceProgramsOf(folder.fd).ids, []);
  await grant.revoke();
});

/** BPF_MAP_CREATE of an array with one value of 8 bytes. */
function makeMap(): Fd {
  const attributes = offHeap(64);
  for (const [i, value] of [2, 4, 8, 1].entries()) attributes.writeUInt32LE(value, i * 4);
  return Fd.own(bpf("make a map", 0, attributes));
}

const foreign = [
  {
    says: "a map",
    problem: /uses 1 maps/,
    load(folder: CgroupFolder) {
      const map = makeMap();
      install(folder, withMap(map), { name: "with_map" });
      map.close();
    },
  },
  {
    says: "a helper",
    problem: /calls a helper/,
    load: (folder: CgroupFolder) => void install(folder, withHelper, { name: "with_helper" }),
  },
];
for (const { says, problem, load } of foreign) {
  test(`a filter with ${says} is refused, and no other one of the pod is changed`, async (t) => {
    if (!needsVersion(t, 2)) return;
    const scene = new AccessScene(t, 2);
    scene.close(`${POD}/first`);
    const folder = bare(scene);
    install(folder, onlyNull);
    load(folder);
    const before = [scene.rulesOf(`${POD}/first`), scene.rulesOf(ONE)];
    const grant = scene.grant([zero]);
    await assert.rejects(grant.apply(), faultOf("foreign-filter", problem));
    assert.deepEqual([scene.rulesOf(`${POD}/first`), scene.rulesOf(ONE)], before);
    await grant.revoke();
  });
}

test("a grant that fails half way leaves each container what another grant of the pod needs", async (t) => {
  if (!needsVersion(t, 2)) return;
  const scene = new AccessScene(t, 2);
  scene.close(`${POD}/first`);
  install(bare(scene), withHelper, { name: "with_helper" });
  await scene.grant([zero], { id: "earlier", dir: `${POD}/first` }).apply();
  const before = scene.rulesOf(`${POD}/first`);
  const grant = scene.grant([zero, full]);
  await assert.rejects(grant.apply(), faultOf("foreign-filter", /calls a helper/));
  assert.deepEqual(scene.rulesOf(`${POD}/first`), before);
  grant.letGo();
});

test("a filter that is attached by a link is refused, and that is said", async (t) => {
  if (!needsVersion(t, 2)) return;
  const scene = new AccessScene(t, 2);
  const folder = bare(scene);
  install(folder, onlyNull);
  const link = installByLink(folder, onlyNull);
  try {
    const before = scene.rulesOf(ONE);
    const grant = scene.grant([zero]);
    await assert.rejects(grant.apply(), faultOf("foreign-filter", /BPF link/));
    assert.deepEqual(scene.rulesOf(ONE), before);
    grant.letGo();
  } finally {
    link.close();
  }
});

test("revoke() of what another program holds by a link proves nothing, says so, and is tried again", async (t) => {
  if (!needsVersion(t, 2)) return;
  const scene = new AccessScene(t, 2);
  const folder = bare(scene);
  const originalId = install(folder, onlyNull);
  const one = scene.place.start(ONE);
  const grant = scene.grant([zero]);
  await grant.apply();
  const [ours = 0] = deviceProgramsOf(folder.fd).ids;
  const link = installByLink(folder, joinProgram({ devices: [zero], originalId }, onlyNull));
  try {
    detach(folder, ours);
    await assert.rejects(grant.revoke(), faultOf("not-revoked", /still has our part.*BPF link/));
    assert.equal(await one.open(zero), "ok");
  } finally {
    link.close();
  }
  await grant.revoke();
});

test("what others have put in front of our block since stays when it is taken out", async (t) => {
  if (!needsVersion(t, 2)) return;
  const scene = new AccessScene(t, 2);
  const folder = bare(scene);
  install(folder, onlyNull);
  const one = scene.place.start(ONE);
  const grant = scene.grant([zero]);
  await grant.apply();
  putInFront(folder, encodeBlock({ devices: [full], originalId: 1 }).slice(3));
  assert.deepEqual([await one.open(zero), await one.open(full)], ["ok", "ok"]);
  await grant.revoke();
  assert.match(await one.open(zero), REFUSED);
  assert.equal(await one.open(full), "ok");
});

test("a filter above the pod that refuses the device is named, and not touched", async (t) => {
  if (!needsVersion(t, 2)) return;
  const scene = new AccessScene(t, 2);
  scene.close("kubepods/burstable");
  scene.close(ONE);
  const before = [scene.rulesOf("kubepods/burstable"), scene.rulesOf(ONE)];
  const grant = scene.grant([zero]);
  await assert.rejects(grant.apply(), faultOf("refused-above", /kubepods\/burstable, which other pods share/));
  assert.deepEqual([scene.rulesOf("kubepods/burstable"), scene.rulesOf(ONE)], before);
});

test("a filter of the pod's own cgroup gets our block too", async (t) => {
  if (!needsVersion(t, 2)) return;
  const scene = new AccessScene(t, 2);
  scene.close(POD);
  const one = scene.container(ONE);
  const grant = scene.grant([zero]);
  await grant.apply();
  assert.equal(await one.open(zero), "ok");
  await grant.revoke();
  assert.match(await one.open(zero), REFUSED);
});

test("where 64 filters are attached already, the kernel changes none, and that is said", async (t) => {
  if (!needsVersion(t, 2)) return;
  const scene = new AccessScene(t, 2);
  const folder = bare(scene);
  for (let i = 0; i < 64; i++) install(folder, runtimeFilter([{ major: 200, minor: i }]));
  const before = scene.rulesOf(ONE);
  const grant = scene.grant([zero]);
  await assert.rejects(grant.apply(), faultOf("not-taken", /64 filters/));
  assert.deepEqual(scene.rulesOf(ONE), before);
  await grant.revoke();
});

test("what the verifier says reaches the error", (t) => {
  if (!needsVersion(t, 2)) return;
  const scene = new AccessScene(t, 2);
  assert.throws(() => install(bare(scene), [instruction(Op.EXIT)]), /the verifier says: .*R0 !read_ok/);
});
