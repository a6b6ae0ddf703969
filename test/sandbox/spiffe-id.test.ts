// Registration entries of our pod that come and go: a second one that sorts first, ours deleted, another in its place.
import assert from "node:assert/strict";
import { eventually, runStories, type Scene, type Story } from "./scenes/story.ts";

async function readyz({ forwarder }: Scene): Promise<{ readonly status: number; readonly lines: readonly string[] }> {
  const answer = await fetch(`${forwarder.adminUrl}/readyz?verbose`, { headers: { connection: "close" } });
  return { status: answer.status, lines: (await answer.text()).trim().split("\n") };
}

const codesOf = ({ forwarder }: Scene) => forwarder.health.conditions().map(({ code }) => code);

/** Our ID is issued beside another one that comes first; then an answer to this state has been accepted. */
async function issued(scene: Scene, ...paths: readonly string[]): Promise<void> {
  const { spire, workload } = scene.sandbox;
  const answers = () => scene.log.of("svid-rotated").length + scene.log.of("svid-unchanged").length;
  const before = answers();
  workload.issue(...paths.map((path) => spire.idOf(path)));
  await eventually(answers, (count) => count > before);
}

const stories: Readonly<Record<string, Story>> = {
  "a second entry that sorts first changes nothing, also when all are renewed": async (scene) => {
    const { spire } = scene.sandbox;
    await issued(scene, "another", "forwarder");
    const rotations = scene.log.of("svid-rotated").length;
    spire.rotate();
    await eventually(
      () => scene.log.of("svid-rotated").length,
      (count) => count > rotations,
    );
    assert.equal(scene.log.of("svid-rotated").at(-1)?.["spiffeId"], spire.idOf("forwarder"));
    await scene.serves(await scene.pod());
    assert.deepEqual([await readyz(scene), scene.log.of("spiffe-id-changed")], [{ status: 200, lines: ["ready"] }, []]);
    await issued(scene, "forwarder");
  },
  "a restart while another entry sorts first changes nothing, either": async (scene) => {
    await issued(scene, "another", "forwarder");
    await scene.sandbox.stopForwarder();
    scene.forwarder = await scene.sandbox.startForwarder();
    await scene.sandbox.kubelet.until("worker.domain/10G", (devices) => devices.some(({ healthy }) => healthy));
    assert.equal(scene.log.of("svid-received").at(-1)?.["spiffeId"], scene.sandbox.spire.idOf("forwarder"));
    await scene.serves(await scene.pod());
    await issued(scene, "forwarder");
  },
  "ours is deleted: that is said at once with its reason, and all continues": async (scene) => {
    scene.sandbox.workload.issue();
    await eventually(
      () => codesOf(scene),
      (codes) => codes.includes("workload-api-lost"),
    );
    const { status, lines } = await readyz(scene);
    assert.deepEqual([status, lines.length], [200, 2]);
    assert.match(
      lines[1] ?? "",
      /^warning workload-api-lost: The SVID of \S+, good until \S+ is not renewed .* issues no identity/,
    );
    await scene.serves(await scene.pod());
    await issued(scene, "forwarder");
    assert.deepEqual(codesOf(scene), []);
  },
  "another takes the place of ours: a warning and the refusal, until ours is back": async (scene) => {
    await issued(scene, "another");
    const [changed] = scene.log.of("spiffe-id-changed");
    assert.deepEqual(
      [changed?.["before"], changed?.["spiffeId"]],
      ["forwarder", "another"].map((path) => scene.sandbox.spire.idOf(path)),
    );
    await eventually(
      () => codesOf(scene),
      (codes) => codes.includes("not-registered"),
    );
    assert.match(String((await readyz(scene)).lines[0]), /^not-registered: .*no sufficient privileges/);
    await issued(scene, "forwarder");
    await eventually(
      () => codesOf(scene),
      (codes) => codes.length === 0,
    );
    await scene.serves(await scene.pod());
  },
};
runStories("the SPIFFE ID that is ours", { registrationExpiryMs: 3000 }, stories);
