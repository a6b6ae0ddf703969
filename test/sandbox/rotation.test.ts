// Certificates that are renewed, each peer's alone, at every moment of a connection. The peers keep their connections whatever
// they renew, and sign with their newest key, as those in Go do. Nothing is refused, and the forwarder is ready all the time.
import assert from "node:assert/strict";
import type { Client } from "../../sandbox/nsm/client.ts";
import { SANDBOX_FORWARDER, type SandboxOptions, type SandboxPod } from "../../sandbox/sandbox.ts";
import { eventually, runStories, type Scene, type Story } from "./scenes/story.ts";

/** The manager answers for the registry too. */
const PEERS = ["forwarder", "nsmgr", "nse", "client"] as const;
type Peer = (typeof PEERS)[number];

/** How a client comes to the forwarder: through the manager, or as a manager that has kept its connection from the first call. */
const ways: Readonly<Record<string, (scene: Scene, pod: SandboxPod) => Client>> = {
  "through the manager": (_scene, pod) => pod.client,
  "on a manager's kept connection": (scene, pod) => scene.direct(pod),
};

/** What must not be said: each is a verdict on a peer that did nothing but renew its certificate. */
const VERDICTS = [
  "call-failed",
  "registration-refused",
  "registration-lost",
  "not-unregistered",
  "endpoint-close-failed",
];

/** Renews one certificate; the forwarder's is awaited, for it comes by the Workload API. */
async function rotate({ sandbox, log }: Scene, peer: Peer, { name }: Pick<SandboxPod, "name">): Promise<void> {
  const before = log.of("svid-rotated").length;
  sandbox.spire.rotate(sandbox.spire.idOf(peer === "client" ? `ns/default/pod/${name}` : peer));
  if (peer === "forwarder") {
    await eventually(
      () => log.of("svid-rotated").length,
      (count) => count > before,
    );
  }
}

/** Nothing is refused while the work is done, and at no moment the forwarder is not ready. */
async function unharmed({ log, forwarder }: Scene, work: () => Promise<void>): Promise<void> {
  const reported = log.events.length;
  const seen = new Set<boolean>([forwarder.health.ready.value ?? false]);
  const stop = forwarder.health.ready.onChange((isReady) => seen.add(isReady));
  try {
    await work();
  } finally {
    stop();
  }
  const verdicts = log.events.slice(reported).filter(({ event }) => VERDICTS.includes(event));
  assert.deepEqual([verdicts, [...seen]], [[], [true]]);
  const answer = await fetch(`${forwarder.adminUrl}/readyz`, { headers: { connection: "close" } });
  assert.equal(answer.status, 200);
}

/** The forwarder's entry is renewed; it must not have been gone meanwhile. */
function nextRegistration({ sandbox }: Scene): Promise<void> {
  return new Promise((resolve, reject) => {
    const stop = sandbox.nsmgr.registry.endpoints.watch(({ entry, deleted }) => {
      if (entry.endpoint.name !== SANDBOX_FORWARDER) return;
      stop();
      if (deleted) reject(new Error("the manager has dropped the forwarder"));
      else resolve();
    });
  });
}

/** A registration that expires after a second has half a second for each call: where the machine took longer, that says nothing of renewals. */
async function withoutHaste(scene: Scene, play: () => Promise<void>): Promise<void> {
  for (let left = 5; ; left--) {
    const reported = scene.log.events.length;
    try {
      return await play();
    } catch (error) {
      const late = scene.log.events.slice(reported).some(({ fields }) => /took longer/.test(String(fields?.["error"])));
      if (!late || left === 0) throw error;
      await nextRegistration(scene).catch(() => nextRegistration(scene));
    }
  }
}

const calls: Record<string, Story> = {};
const registrations: Record<string, Story> = {};
for (const peer of PEERS) {
  for (const [way, clientOf] of Object.entries(ways)) {
    calls[`${peer} renews its certificate between Request, refresh and Close, ${way}`] = async (scene) => {
      const pod = await scene.pod();
      const client = clientOf(scene, pod);
      await unharmed(scene, async () => {
        await client.request();
        await rotate(scene, peer, pod);
        await client.request();
        await rotate(scene, peer, pod);
        await client.close();
      });
    };
    calls[`${peer} renews its certificate during a Request, a refresh and a Close, ${way}`] = async (scene) => {
      const pod = await scene.pod();
      const client = clientOf(scene, pod);
      const { knobs } = scene.sandbox.endpoint;
      knobs.meanwhile = () => rotate(scene, peer, pod);
      knobs.atClose = knobs.meanwhile;
      try {
        await unharmed(scene, async () => {
          await client.request();
          await client.request();
          await client.close();
        });
      } finally {
        knobs.meanwhile = undefined;
        knobs.atClose = undefined;
      }
    };
  }
  registrations[`${peer} renews its certificate between two registrations, and while one is under way`] = async (
    scene,
  ) => {
    const pod = await scene.pod();
    await nextRegistration(scene);
    await withoutHaste(scene, () =>
      unharmed(scene, async () => {
        const renewed = nextRegistration(scene);
        await rotate(scene, peer, pod);
        await renewed;
        await rotate(scene, peer, pod);
        await nextRegistration(scene);
        await nextRegistration(scene);
      }),
    );
  };
}

/** How SPIRE issues: each world has a node of its own. */
const worlds: Readonly<Record<string, NonNullable<SandboxOptions["spire"]>>> = {
  "": {},
  ", by authorities below the root": { hasIntermediates: true },
  ", of peers in a federated trust domain": {
    federatedDomainOf: (path) => (path === "forwarder" ? undefined : "federated.test"),
  },
};
for (const [world, spire] of Object.entries(worlds)) {
  runStories(`rotation and calls${world}`, { spire }, calls);
  runStories(`rotation and registrations${world}`, { spire, registrationExpiryMs: 1000 }, registrations);
}
