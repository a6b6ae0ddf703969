// Many at once: no client waits for another's VF, and nothing is left over.
import assert from "node:assert/strict";
import { SANDBOX_VLAN, type SandboxPod } from "../../sandbox/sandbox.ts";
import { ipDump } from "./scenes/ip.ts";
import { eventually, openFiles, runStories, type Scene } from "./scenes/story.ts";

const endpoint = { prefixes: ["172.16.0.0/16", "2001:db8::/64"], context: { ethernet: { vlanTag: SANDBOX_VLAN } } };

runStories(
  "64 VFs",
  { machine: { pfs: 4, vfsPerPf: 16 }, endpoint },
  { "are given at once while the bind of one hangs": oneHangs },
);

runStories(
  "16 VFs",
  { machine: { pfs: 2, vfsPerPf: 8 }, endpoint },
  { "asked for and closed at once, five times, leave nothing over": fiveRounds },
);

async function oneHangs(scene: Scene): Promise<void> {
  const { machine } = scene.sandbox;
  const { inventory } = scene.forwarder.node;
  const pods: SandboxPod[] = [];
  for (let count = 0; count < 64; count += 1) pods.push(await scene.pod());
  const hanging = inventory.snapshot().find(({ tokenId }) => tokenId === pods[0]?.tokenId)?.address ?? "";
  await machine.drivers.writeText("igbvf/unbind", hanging);
  scene.isMended = true;
  const letGo = machine.faults.stallWrite({ tree: "drivers", path: "igbvf/bind", text: hanging });
  let hasFirst = false;
  const clients = pods.map((pod) => scene.direct(pod));
  const [first, ...others] = clients.map((client) => client.request());
  const firstDone = first?.then((connection) => {
    hasFirst = true;
    return connection;
  });
  const given = (await Promise.all(others)).map(({ mechanism }) => mechanism?.parameters["pciAddress"] ?? "");
  assert.equal(hasFirst, false);
  letGo();
  given.push((await firstDone)?.mechanism?.parameters["pciAddress"] ?? "");
  assert.equal(new Set(given).size, 64);
  assert.ok(inventory.snapshot().every(({ state, address }) => state === "ready" && given.includes(address)));
  const links = await Promise.all(pods.map(({ pod }) => pod.link("nsm-1")));
  assert.ok(links.every((link) => link?.up));
  await Promise.all(clients.map((client) => client.close()));
  assert.ok(inventory.snapshot().every(({ connectionId }) => connectionId === undefined));
}

async function fiveRounds(scene: Scene): Promise<void> {
  const pods: SandboxPod[] = [];
  for (let count = 0; count < 16; count += 1) pods.push(await scene.pod());
  const clients = pods.map((pod) => scene.direct(pod));
  const round = async () => {
    await Promise.all(clients.map((client) => client.request()));
    await Promise.all(clients.map((client) => client.close()));
  };
  await round(); // connections to peers are made once
  const before = await scene.dump(pods);
  const open = () => ({ sockets: openFiles("socket").length, namespaces: openFiles("net").length });
  const atFirst = open();
  for (let count = 0; count < 4; count += 1) await round();
  assert.deepEqual(await scene.dump(pods), before);
  await eventually(open, ({ sockets, namespaces }) => sockets <= atFirst.sockets && namespaces === atFirst.namespaces);
  for (const { pod } of pods) assert.equal((await ipDump(pod.netns)).links.length, 1);
}
