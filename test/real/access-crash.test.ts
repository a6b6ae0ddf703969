import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { promisify } from "node:util";
import type { GrantState } from "../../src/access/index.ts";
import { bundleProgram } from "../../tools/bundle-program.ts";
import { AccessScene, needsVersion, podPath, versions } from "../scenes/access-scene.ts";
import { full, REFUSED, zero } from "../scenes/pod-cgroups.ts";

const ROOT = new URL("../..", import.meta.url).pathname;

/** What a process that died at a step has left: its pod, and its journal. */
interface Wreck {
  readonly uid: string;
  readonly step: number;
  readonly journal: GrantState | undefined;
}

/** Runs a process that dies at the step; answers how many steps there were, 0 when it died. */
async function crash(
  scene: AccessScene,
  { program, uid, journal, step }: { program: string; uid: string; journal: string; step: number },
): Promise<number> {
  for (const container of ["one", "two"]) scene.close(`${podPath(uid)}/${container}`);
  const args = [program, scene.place.path, uid, journal, String(step)];
  try {
    return Number((await promisify(execFile)(process.execPath, args)).stdout);
  } catch (error) {
    assert.equal((error as { signal?: string }).signal, "SIGKILL");
    return 0;
  }
}

/** Dies once at every step, two processes at a time, each with a pod of its own. */
async function crashEverywhere(t: TestContext, scene: AccessScene): Promise<readonly Wreck[]> {
  const folder = mkdtempSync(join(tmpdir(), "journals-"));
  const program = await bundleProgram(ROOT, "test/scenes/access-crasher.ts");
  t.after(() => rmSync(folder, { recursive: true }));
  const steps = await crash(scene, { program, uid: "whole", journal: join(folder, "whole"), step: 0 });
  assert.ok(steps > 10, `the work has ${steps} steps`);
  const waiting = Array.from({ length: steps }, (_, i) => i + 1);
  const wrecks: Wreck[] = [];
  const work = async () => {
    for (let step = waiting.shift(); step !== undefined; step = waiting.shift()) {
      const [uid, journal] = [`died-${step}`, join(folder, String(step))];
      // An event may make it look once more or less: then it has ended before its last step.
      if ((await crash(scene, { program, uid, journal, step })) > 0) continue;
      const text = existsSync(journal) ? readFileSync(journal, "utf8") : "";
      wrecks.push({ uid, step, journal: text === "" ? undefined : (JSON.parse(text) as GrantState) });
    }
  };
  await Promise.all([work(), work()]);
  assert.ok(wrecks.length > steps / 2, `of ${steps} steps it died at ${wrecks.length}`);
  return wrecks;
}

for (const version of versions) {
  test(`SIGKILL at any step leaves nothing that a restart does not find, version ${version}`, async (t) => {
    if (!needsVersion(t, version)) return;
    const scene = new AccessScene(t, version);
    const wrecks = await crashEverywhere(t, scene);
    const closed = scene.rulesOf(`${podPath("whole")}/one`);
    const access = scene.openAccess(t);
    // Of every second one the journal is lost.
    const kept = wrecks.filter(({ step }) => step % 2 === 0);
    assert.ok(wrecks.every(({ journal }) => journal !== undefined));
    const grants = kept.flatMap(({ journal }) => (journal ? [access.adopt(journal, async () => {})] : []));
    const strays = await access.clearStrays(
      [zero, full],
      wrecks.map(({ uid }) => uid),
    );
    assert.ok(strays.length > 0 && strays.every(({ problem }) => problem === undefined));
    for (const grant of grants) await grant.apply();
    for (const { uid, step } of wrecks) {
      const rules = ["one", "two"].map((name) => scene.rulesOf(`${podPath(uid)}/${name}`));
      const isClosed = rules.every((one) => one.join() === closed.join());
      assert.equal(isClosed, step % 2 === 1, `step ${step}`);
    }
    const opener = scene.place.start(`${podPath("died-2")}/two`);
    assert.equal(await opener.open(full), "ok");
    for (const grant of grants) await grant.revoke();
    assert.match(await opener.open(full), REFUSED);
    for (const { uid } of kept) {
      for (const name of ["one", "two"]) assert.deepEqual(scene.rulesOf(`${podPath(uid)}/${name}`), closed);
    }
  });
}
