// The SPIRE agent goes away, and our SVID ends while connections are established; then a peer's. What a token allows lasts as long as the
// token, what needs a token of ours is refused, and all is as before when the agent is back.
import assert from "node:assert/strict";
import { timestampMs } from "@bufbuild/protobuf/wkt";
import { LeapClock } from "../../sandbox/leap-clock.ts";
import { createActor } from "../../sandbox/nsm/actor.ts";
import { SANDBOX_FORWARDER, type SandboxPod } from "../../sandbox/sandbox.ts";
import { eventually, refusal, runStories, type Scene } from "./scenes/story.ts";

const clock = new LeapClock();
const MINUTE_MS = 60_000;
const HOUR_MS = 60 * MINUTE_MS;

runStories(
  "an identity that ends",
  { clock, registrationExpiryMs: 4000 },
  {
    "is ours: what is established stays, what is new is refused, and all is as before when the agent is back": ourOwn,
    "is a peer's: it is let in no more, and what it has lasts as long as its tokens": aPeers,
  },
);

/** Its SVID begins with its first call. */
function managerWithLongTokens({ sandbox: { spire } }: Scene, name: string) {
  const actor = createActor({ spire, spiffeId: spire.idOf(name), tokenLifetimeMs: 24 * HOUR_MS, clock });
  return { name: "nsmgr-1", actor };
}

const codesOf = ({ forwarder }: Scene) => forwarder.health.conditions().map(({ code }) => code);

async function readiness({ forwarder }: Scene): Promise<{ readonly status: number; readonly text: string }> {
  const answer = await fetch(`${forwarder.adminUrl}/readyz`, { headers: { connection: "close" } });
  return { status: answer.status, text: await answer.text() };
}

/** Their entries in the registry have ended in a leap; each renews its own. */
async function endpointsRenewed({ sandbox: { nsmgr, endpoint } }: Scene): Promise<void> {
  const ends = () =>
    [SANDBOX_FORWARDER, endpoint.name].map((name) => nsmgr.registry.endpoints.get(name)?.endpoint.expirationTime);
  await eventually(ends, (times) => times.every((time) => time !== undefined && timestampMs(time) > clock.now()));
}

/** What is under way is over before: its limits would be, too, and a VF that its driver makes again counts as ill until the next try. */
async function leap(scene: Scene, ms: number): Promise<void> {
  await scene.cleaned();
  clock.leap(ms);
}

/** A read of the node that a leap takes the time of is a fault until the next one. */
async function podOf(scene: Scene): Promise<SandboxPod> {
  const pod = await eventually(
    () => scene.pod().catch((error: unknown) => String(error)),
    (got) => typeof got !== "string",
  );
  return typeof pod === "string" ? assert.fail(pod) : pod;
}

async function ourOwn(scene: Scene): Promise<void> {
  const { sandbox, log } = scene;
  const { spire, workload } = sandbox;
  await workload.stop();
  await leap(scene, 40 * MINUTE_MS);
  for (const name of ["nsmgr", "nse"]) spire.rotate(spire.idOf(name));
  await endpointsRenewed(scene);
  const [pod, other] = [await podOf(scene), await podOf(scene)];
  const client = scene.direct(pod, { manager: managerWithLongTokens(scene, "late-manager") });
  await client.request();
  await leap(scene, 10 * MINUTE_MS);
  await eventually(
    () => codesOf(scene),
    (codes) => codes.includes("svid-expiring"),
  );
  assert.equal((await readiness(scene)).status, 200);

  await leap(scene, 15 * MINUTE_MS);
  await eventually(
    () => codesOf(scene),
    (codes) => codes.includes("svid-expired"),
  );
  const [cause, consequence] = codesOf(scene);
  assert.deepEqual([cause, consequence], ["workload-api-lost", "svid-expired"]);
  const { status, text } = await readiness(scene);
  assert.deepEqual([status, /svid-expired: .*no SPIRE agent answers there/.test(text)], [503, true]);
  assert.equal(log.of("svid-expired").length, 1);
  assert.equal((await pod.pod.link("nsm-1"))?.up, true, "what is established is not touched");
  const ended = refusal("UNAVAILABLE", /^Cannot issue a token: our own SVID \S+ expired at /);
  await assert.rejects(client.request(), ended);
  await assert.rejects(client.close(), ended);
  await assert.rejects(scene.direct(other).request(), refusal("UNAVAILABLE", /TLS handshake failed: .* has expired$/));
  assert.equal((await pod.pod.link("nsm-1"))?.up, true);

  spire.rotate(spire.idOf("forwarder"));
  await workload.start();
  await eventually(
    () => codesOf(scene),
    (codes) => codes.length === 0,
  );
  assert.equal((await readiness(scene)).status, 200);
  await endpointsRenewed(scene);
  await client.request();
  await scene.serves(other);
  await client.close();
}

async function aPeers(scene: Scene): Promise<void> {
  const { spire } = scene.sandbox;
  const pod = await podOf(scene);
  const client = scene.direct(pod, { manager: managerWithLongTokens(scene, "ending-manager") });
  await client.request();
  await leap(scene, HOUR_MS / 2);
  for (const name of ["forwarder", "nsmgr", "nse"]) spire.rotate(spire.idOf(name));
  await endpointsRenewed(scene);
  await scene.serves(await podOf(scene));
  assert.equal((await pod.pod.link("nsm-1"))?.up, true);
  await leap(scene, HOUR_MS / 2);
  await eventually(
    () => scene.forwarder.nsm.connectionCount,
    (count) => count === 0,
  );
  assert.equal(await pod.pod.link("nsm-1"), undefined);
  await assert.rejects(client.request(), refusal("UNAVAILABLE", /it may have refused our certificate/));
  const said = scene.log.of("rpc-handshake-failed").map(({ error }) => String(error));
  assert.ok(said.some((error) => /Cannot trust the peer .*ending-manager: its certificate expired at /.test(error)));
  assert.equal((await readiness(scene)).status, 200);
  for (const name of ["ending-manager", `ns/default/pod/${pod.name}`]) spire.rotate(spire.idOf(name));
  await endpointsRenewed(scene);
  await client.request();
  await client.close();
}
