// The wall clock of the node is set by hours, ahead and back, while connections are established: no time has passed, so nothing ends. What
// is new works as soon as there are certificates for the time that it is now.
import assert from "node:assert/strict";
import { timestampMs } from "@bufbuild/protobuf/wkt";
import { LeapClock } from "../../sandbox/leap-clock.ts";
import { SANDBOX_FORWARDER } from "../../sandbox/sandbox.ts";
import { eventually, runStories, type Scene } from "./scenes/story.ts";

const clock = new LeapClock();
const HOUR_MS = 3_600_000;

runStories(
  "a clock that is set",
  { clock, registrationExpiryMs: 1000 },
  {
    "five hours ahead ends no connection": (scene) => setBy(scene, 5 * HOUR_MS),
    "five hours back ends no connection": (scene) => setBy(scene, -5 * HOUR_MS),
    "ahead and back again within a certificate's life is not noticed": withinALife,
    "is noticed by the health of our SVID, both ways": health,
  },
);

/** As the SPIRE agents of all do when they find that it is time. */
async function renewAll({ sandbox, log }: Scene): Promise<void> {
  const before = log.of("svid-rotated").length;
  sandbox.spire.rotate();
  await eventually(
    () => log.of("svid-rotated").length,
    (count) => count > before,
  );
}

/** What a registry says of an entry's end is a time of the clock too: the original also leaves out what has ended by it. */
async function registeredAgain({ sandbox: { nsmgr, endpoint } }: Scene): Promise<void> {
  const isAlive = (name: string) => {
    const end = nsmgr.registry.endpoints.get(name)?.endpoint.expirationTime;
    return end !== undefined && timestampMs(end) > clock.now();
  };
  await eventually(
    () => [SANDBOX_FORWARDER, endpoint.name].map(isAlive),
    (alive) => alive.every(Boolean),
  );
}

async function setBy(scene: Scene, ms: number): Promise<void> {
  const [pod, other] = [await scene.pod(), await scene.pod()];
  const [client, unchanged] = [scene.direct(pod), scene.log.of("connection-ended").length];
  await client.request();
  clock.set(ms);
  // Longer than a comparison of the node takes, and what watches the clock.
  clock.leap(90_000);
  await scene.forwarder.node.survey.observe();
  assert.deepEqual([scene.forwarder.nsm.connectionCount, (await pod.pod.link("nsm-1"))?.up], [1, true]);
  await renewAll(scene);
  await registeredAgain(scene);
  await client.request();
  await scene.serves(other);
  assert.deepEqual(scene.log.of("connection-ended").length, unchanged + 1, "that of the other pod, by its Close");
  await client.close();
  assert.deepEqual(scene.forwarder.health.conditions(), []);
  clock.set(-ms);
  await renewAll(scene);
  await registeredAgain(scene);
}

async function withinALife(scene: Scene): Promise<void> {
  const pod = await scene.pod();
  const client = scene.direct(pod);
  await client.request();
  for (const ms of [HOUR_MS / 3, -HOUR_MS / 3]) {
    clock.set(ms);
    await registeredAgain(scene);
    await client.request();
    await scene.serves(await scene.pod());
    assert.deepEqual(scene.forwarder.health.conditions(), []);
  }
  await client.close();
}

async function health(scene: Scene): Promise<void> {
  const codes = () => scene.forwarder.health.conditions().map(({ code }) => code);
  clock.set(2 * HOUR_MS);
  clock.leap(61_000);
  await eventually(codes, (now) => now.includes("svid-expired"));
  clock.set(-2 * HOUR_MS);
  clock.leap(61_000);
  await eventually(codes, (now) => now.length === 0);
}
