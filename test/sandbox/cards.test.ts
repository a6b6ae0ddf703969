// The same connections on cards whose drivers behave otherwise than igb's: sandbox/nic/card.ts says how, and where the kernel has it.
import assert from "node:assert/strict";
import { SANDBOX_RESOURCE, type SandboxPod } from "../../sandbox/sandbox.ts";
import { parsePciAddress } from "../../src/pci/index.ts";
import { cardSeed } from "./scenes/card-seed.ts";
import { kernelStories, plainStories } from "./scenes/kernel-stories.ts";
import { refusal, runStories, type Scene } from "./scenes/story.ts";

const seed = cardSeed();

runStories(
  `a KERNEL connection on an iavf-like card (CARD_SEED=${seed})`,
  { machine: { card: { kind: "iavf", resets: { seed } } } },
  kernelStories,
);

runStories(
  "a KERNEL connection on a card whose PF reports nothing of its VFs",
  { machine: { card: { kind: "no-vf-info" } } },
  { ...plainStories, "is refused what the PF cannot be asked for, and leaves nothing": refusedSettings },
);

runStories(
  "a KERNEL connection on a card whose network devices come late",
  { machine: { netdevDelayMs: 300 } },
  kernelStories,
);

runStories(
  "a KERNEL connection on a card whose network devices come seconds late",
  { machine: { netdevDelayMs: 3_000 } },
  plainStories,
);

runStories(
  "a card in switchdev mode",
  { machine: { card: { kind: "switchdev" } } },
  { "is given to no client until it is in legacy mode, and again when it is back": switchdevMode },
);

/** Requests, each with its Close. All thousand of them: CARD_ROUNDS=63. */
const rounds = Number(process.env["CARD_ROUNDS"] ?? 4);
const PODS = 16;

runStories(
  `an iavf-like card (CARD_SEED=${seed})`,
  {
    machine: { pfs: 2, vfsPerPf: PODS / 2, card: { kind: "iavf", resets: { seed } } },
    endpoint: { prefixes: ["172.16.0.0/16", "2001:db8::/64"] },
  },
  {
    [`serves ${rounds * PODS} Requests and Closes, ${PODS} at once: none fails, none is lost, all is as before`]:
      manyRounds,
  },
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

async function refusedSettings(scene: Scene): Promise<void> {
  const { endpoint, machine } = scene.sandbox;
  const pod = await scene.pod();
  const client = scene.direct(pod);
  const before = await scene.dump([pod]);
  for (const [setting, ethernet] of [
    ["mac", { srcMac: "0a:55:44:33:22:aa" }],
    ["vlan", { vlanTag: 7 }],
  ] as const) {
    endpoint.want({ ethernet });
    const why = `Cannot set ${setting} of VF \\d: PF 0000:0\\d:00\\.0 \\(driver igb\\) reports nothing of its VFs`;
    await assert.rejects(client.request(), refusal("FAILED_PRECONDITION", new RegExp(why)));
    assert.deepEqual(await scene.dump([pod]), before);
  }
  assert.deepEqual(
    machine.pfs.flatMap((address) => machine.pfPort({ address }).writes),
    [],
  );
  endpoint.want({});
  await client.request();
  await client.close();
}

/** Both PFs are switches as the node starts. */
async function switchdevMode(scene: Scene): Promise<void> {
  const { endpoint, machine, kubelet } = scene.sandbox;
  scene.isMended = true;
  endpoint.want({});
  const isOffered = (count: number) =>
    kubelet.until(SANDBOX_RESOURCE, (devices) => devices.filter(({ healthy }) => healthy).length === count);
  const problems = () => scene.forwarder.node.survey.problemOf(parsePciAddress(machine.pfs[0] ?? ""));
  await isOffered(0);
  assert.match(problems() ?? "", /in switchdev mode.*devlink dev eswitch set pci\/0000:01:00\.0 mode legacy/);
  for (const pf of machine.pfs) machine.setEswitchMode(pf, "legacy");
  await isOffered(4);
  assert.equal(problems(), undefined);
  const [one, other] = [await scene.pod(), await scene.pod()];
  await scene.serves(one);
  for (const pf of machine.pfs) machine.setEswitchMode(pf, "switchdev");
  await isOffered(0);
  const why = /unhealthy \(physical function 0000:01:00\.0 is in switchdev mode.*mode legacy/;
  await assert.rejects(scene.direct(other).request(), refusal("RESOURCE_EXHAUSTED", why));
  assert.equal(await other.pod.link("nsm-1"), undefined);
  for (const pf of machine.pfs) machine.setEswitchMode(pf, "legacy");
  await isOffered(4);
  await scene.serves(other);
}
