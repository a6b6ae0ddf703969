// The same connections on cards whose drivers behave otherwise than igb's: sandbox/card.ts says how, and where the kernel has it.
import assert from "node:assert/strict";
import type { SandboxPod } from "../../sandbox/sandbox.ts";
import { cardSeed } from "./card-seed.ts";
import { kernelStories } from "./kernel-stories.ts";
import { LINKS, type Scene, tellStories } from "./story.ts";

const seed = cardSeed();

tellStories(
  `a KERNEL connection on an iavf-like card (CARD_SEED=${seed})`,
  { machine: { card: { kind: "iavf", resets: { seed } } } },
  kernelStories,
);

/** Requests, each with its Close. All thousand of them: CARD_ROUNDS=63. */
const rounds = Number(process.env["CARD_ROUNDS"] ?? 4);
const PODS = 16;

tellStories(
  `an iavf-like card (CARD_SEED=${seed})`,
  {
    machine: { pfs: 2, vfsPerPf: PODS / 2, card: { kind: "iavf", resets: { seed } } },
    endpoint: { prefixes: ["172.16.0.0/16", "2001:db8::/64"] },
  },
  {
    [`serves ${rounds * PODS} Requests and Closes, ${PODS} at once: none fails, none is lost, all is as before`]:
      manyRounds,
  },
  LINKS,
  30_000 + rounds * 10_000,
);

async function manyRounds(scene: Scene): Promise<void> {
  const { machine, endpoint } = scene.sandbox;
  const pods: SandboxPod[] = [];
  for (let count = 0; count < PODS; count += 1) pods.push(await scene.pod());
  const clients = pods.map((pod) => scene.direct(pod));
  let round = 0;
  endpoint.want(({ path }) => {
    const number = Number(path?.pathSegments[0]?.name.replace("pod-", ""));
    const bytes = [round, number].map((byte) => byte.toString(16).padStart(2, "0"));
    return { ethernet: { srcMac: `0a:55:44:33:${bytes.join(":")}`, vlanTag: 100 + ((round + number) % 5) } };
  });
  const before = await scene.dump(pods);
  for (; round < rounds; round += 1) {
    const given = await Promise.all(clients.map((client) => client.request()));
    assert.equal(new Set(given.map(({ mechanism }) => mechanism?.parameters["pciAddress"])).size, PODS);
    const links = await Promise.all(pods.map(({ pod }) => pod.link("nsm-1")));
    assert.deepEqual(
      links.map((link) => [link?.up, link?.mac]),
      given.map(({ context }) => [true, context?.ethernetContext?.srcMac]),
    );
    for (const client of clients) {
      const { settings } = await scene.vfOf(client);
      const { srcMac, vlanTag } = client.connection?.context?.ethernetContext ?? {};
      assert.deepEqual([settings.mac, settings.vlan, settings.trust], [srcMac, vlanTag, false]);
    }
    await Promise.all(clients.map((client) => client.close()));
  }
  assert.deepEqual(await scene.dump(pods), before);
  const { all = 0, gone = 0 } = machine.resets?.counts ?? {};
  assert.ok(all >= rounds * PODS * 3 && gone > all / 10, `${all} resets, ${gone} of them took the device away`);
  const trusted = machine.pfs
    .flatMap((address) => machine.pfPort({ address }).writes)
    .filter(({ change }) => "trust" in change);
  assert.deepEqual(trusted, []);
}
