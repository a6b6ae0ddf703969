import assert from "node:assert/strict";
import { readdirSync } from "node:fs";
import { test } from "node:test";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { splitProgram } from "../../src/access/bpf/allow-block.ts";
import { decodeProgram } from "../../src/access/bpf/instruction.ts";
import { bpf, deviceProgramsOf, KernelError, offHeap, openProgram, readProgram } from "../../src/kernel/index.ts";
import { AccessScene, eventually, needsVersion, POD_UID, podPath, versions } from "../scenes/access-scene.ts";
import { REFUSED, zero } from "../scenes/pod-cgroups.ts";

const CYCLES = 1000;
const WARM_UP = 200;
const BPF_PROG_GET_NEXT_ID = 11;
const ONE = `${podPath(POD_UID)}/one`;

/** A number that no other test grants: programs that allow it are ours, wherever they are. */
const mark = { major: 3000 + (process.pid % 1000), minor: process.pid };

/** Loaded programs of the whole machine that allow the mark. */
function markedPrograms(): number {
  const attributes = offHeap(16);
  let found = 0;
  for (let id = 0; ; ) {
    attributes.writeUInt32LE(id, 0);
    try {
      bpf("find the next program", BPF_PROG_GET_NEXT_ID, attributes);
    } catch {
      return found;
    }
    id = attributes.readUInt32LE(4);
    if (isMarked(id)) found += 1;
  }
}

function isMarked(id: number): boolean {
  try {
    const program = openProgram(id);
    const { code } = readProgram(program);
    program.close();
    const devices = code ? (splitProgram(decodeProgram(code)).block?.devices ?? []) : [];
    return devices.some(({ major, minor }) => major === mark.major && minor === mark.minor);
  } catch (error) {
    if (error instanceof KernelError && error.code === "ENOENT") return false; // gone meanwhile
    throw error;
  }
}

/** What this process takes, after the collector has run. */
function taken(): { readonly bytes: number; readonly descriptors: number } {
  setFlagsFromString("--expose-gc");
  const collect = runInNewContext("gc") as () => void;
  collect();
  collect();
  const { heapUsed, external } = process.memoryUsage();
  return { bytes: heapUsed + external, descriptors: readdirSync("/proc/self/fd").length };
}

for (const version of versions) {
  test(`${CYCLES} times granted, opened, revoked, refused, version ${version}: nothing grows`, async (t) => {
    if (!needsVersion(t, version)) return;
    const scene = new AccessScene(t, version);
    const one = scene.container(ONE);
    const before = scene.rulesOf(ONE);
    const counted: { opened: number; refused: number } = { opened: 0, refused: 0 };
    let warm = taken();
    for (let cycle = 0; cycle < CYCLES; cycle++) {
      if (cycle === WARM_UP) warm = taken();
      const grant = scene.grant([zero, mark]);
      await grant.apply();
      if ((await one.open(zero)) === "ok") counted.opened += 1;
      await grant.revoke();
      if (REFUSED.test(await one.open(zero))) counted.refused += 1;
    }
    const end = taken();
    assert.deepEqual(counted, { opened: CYCLES, refused: CYCLES });
    assert.deepEqual(scene.rulesOf(ONE), before);
    assert.equal(end.descriptors, warm.descriptors);
    assert.ok(end.bytes - warm.bytes < 1_000_000, `${end.bytes - warm.bytes} bytes more than after ${WARM_UP} cycles`);
    if (version === 1) return;
    assert.equal(deviceProgramsOf(scene.place.folder(ONE).fd).ids.length, 1);
    // The kernel frees a program a moment after its last holder has gone.
    assert.equal(
      await eventually(
        async () => markedPrograms(),
        (count) => count === 0,
      ),
      0,
    );
    const grant = scene.grant([zero, mark]);
    await grant.apply();
    assert.equal(markedPrograms(), 1);
    await grant.revoke();
  });
}
