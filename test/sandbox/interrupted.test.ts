// Requests and connections that end in the middle, or not as planned: the work is undone, or the next way is taken.
import assert from "node:assert/strict";
import { LeapClock } from "../../sandbox/leap-clock.ts";
import { createActor } from "../../sandbox/nsm/actor.ts";
import { State } from "../../src/gen/connection_pb.ts";
import { ipDump } from "./scenes/ip.ts";
import { eventually, refusal, runStories, type Scene } from "./scenes/story.ts";

/** Of the forwarder, the machine and the peers, but not of those that a story makes itself. */
const clock = new LeapClock();
/** Less than the tokens of those last. */
const SHORT_MS = 240_000;

runStories(
  "a connection",
  { clock },
  {
    "of a client that goes in mid-Request comes to nothing": clientCancels,
    "of a client that goes while its VF is bound comes to nothing": cancelsWhileBinding,
    "of a client that tries again before its cancelled Request is undone gets its VF": triesAgain,
    "of a manager that crashes in mid-Request comes to nothing": managerCrashes,
    "that is not refreshed ends, and its endpoint gets a Close": expires,
    "is given by the next mechanism when the first cannot be": preferences,
    "is given by the next endpoint when the first refuses": nextEndpoint,
    "comes up again at another endpoint when its client asks for another": reselect,
    "gets another VF while the write that binds its own hangs": stuckWrite,
    "waits for its VF as long as the kernel may take when there is no other": onlyStuckWrite,
  },
);

async function clientCancels(scene: Scene): Promise<void> {
  const { endpoint } = scene.sandbox;
  const pod = await scene.pod();
  const requested = endpoint.requests.length;
  endpoint.knobs.delayMs = 60_000;
  const gone = new AbortController();
  const request = scene.direct(pod).request({ signal: gone.signal });
  await eventually(
    () => endpoint.requests.length,
    (count) => count === requested + 1,
  );
  endpoint.knobs.delayMs = 0;
  gone.abort();
  await assert.rejects(request, refusal("CANCELLED", /./));
  await nothingLeft(scene);
  assert.equal((await ipDump(pod.pod.netns)).links.length, 1);
  await scene.serves(pod);
}

async function cancelsWhileBinding(scene: Scene): Promise<void> {
  const { machine } = scene.sandbox;
  const [pod, other] = [await scene.pod(), await scene.pod()];
  const address = await unbound(scene, pod.tokenId);
  const letGo = machine.faults.stallWrite({ tree: "drivers", path: "igbvf/bind", text: address });
  const gone = new AbortController();
  const request = scene.direct(pod).request({ signal: gone.signal });
  await eventually(
    () => scene.sandbox.changes.seen.some((change) => change.includes("igbvf/bind")),
    (isSeen) => isSeen,
  );
  gone.abort();
  await assert.rejects(request, refusal("CANCELLED", /./));
  await scene.serves(other); // meanwhile, and long enough for the forwarder to notice
  // Not idle before the write has ended: what it does would be done to another client's VF.
  const record = () => scene.forwarder.node.inventory.snapshot().find((vf) => vf.address === address);
  assert.notEqual(record()?.connectionId, undefined);
  letGo();
  await nothingLeft(scene);
  assert.deepEqual([record()?.connectionId, record()?.problem], [undefined, undefined]);
  await scene.serves(pod);
}

async function triesAgain(scene: Scene): Promise<void> {
  const { machine } = scene.sandbox;
  const [pod, other] = [await scene.pod(), await scene.pod()];
  const address = await unbound(scene, pod.tokenId);
  const letGo = machine.faults.stallWrite({ tree: "drivers", path: "igbvf/bind", text: address });
  const gone = new AbortController();
  const client = scene.direct(pod);
  const request = client.request({ signal: gone.signal });
  await eventually(
    () => scene.sandbox.changes.seen.some((change) => change.includes("igbvf/bind")),
    (isSeen) => isSeen,
  );
  gone.abort();
  await assert.rejects(request, refusal("CANCELLED", /./));
  const again = client.request(); // on a path of its own: the forwarder has never answered with an id
  await scene.serves(other); // long enough for it to arrive
  letGo();
  assert.equal((await again).mechanism?.parameters["pciAddress"], address);
  await client.close();
}

async function managerCrashes(scene: Scene): Promise<void> {
  const { endpoint, nsmgr } = scene.sandbox;
  const pod = await scene.pod();
  const requested = endpoint.requests.length;
  endpoint.knobs.delayMs = 3_600_000;
  const request = pod.client.request();
  await eventually(
    () => endpoint.requests.length,
    (count) => count === requested + 1,
  );
  await Promise.all([nsmgr.stop(), assert.rejects(request, refusal("UNAVAILABLE", /./))]);
  endpoint.knobs.delayMs = 0;
  await nothingLeft(scene);
  assert.equal((await ipDump(pod.pod.netns)).links.length, 1);
  await nsmgr.start();
  await eventually(
    () => scene.forwarder.health.ready.value,
    (isReady) => isReady === true,
  );
  await scene.serves(pod);
}

async function expires(scene: Scene): Promise<void> {
  const { endpoint, spire } = scene.sandbox;
  const pod = await scene.pod();
  const actor = createActor({ spire, spiffeId: spire.idOf("nsmgr"), tokenLifetimeMs: SHORT_MS, clock });
  const client = scene.direct(pod, { manager: { name: "nsmgr-1", actor } });
  const closes = endpoint.closes.length;
  await client.request();
  assert.equal((await pod.pod.link("nsm-1"))?.up, true);
  clock.leap(SHORT_MS / 2); // where a caller allows long calls; its endpoint still takes the token
  await eventually(
    () => endpoint.closes.length,
    (count) => count === closes + 1,
  );
  await nothingLeft(scene);
  assert.equal((await ipDump(pod.pod.netns)).links.length, 1);
  await scene.serves(pod);
}

async function preferences(scene: Scene): Promise<void> {
  const pod = await scene.pod();
  const client = scene.direct(pod);
  const { mechanism } = await client.request({
    alter: ({ mechanismPreferences: list }) => {
      const [good] = list;
      const parameters = { ...good?.parameters };
      const bad = { ...parameters, name: "a/b" };
      const foreign = { ...parameters, tokenID: "sriov-12345678-1234-1234-1234-123456789abc" };
      const named = { ...parameters, name: "second" };
      list.length = 0;
      for (const each of [bad, foreign, named]) if (good) list.push({ ...good, parameters: each });
    },
  });
  assert.equal(mechanism?.parameters["name"], "second");
  assert.equal((await pod.pod.link("second"))?.up, true);
  assert.equal((await pod.pod.links()).length, 1);
  await client.close();
}

async function nextEndpoint(scene: Scene): Promise<void> {
  const { endpoint } = scene.sandbox;
  const pod = await scene.pod();
  const other = scene.endpoint("nse-2");
  await other.start();
  try {
    // Whichever is asked first: one of the two times it is the one that refuses.
    for (const [refusing, serving] of [
      [endpoint, other],
      [other, endpoint],
    ] as const) {
      refusing.knobs.failTimes = 1_000;
      const client = scene.direct(pod);
      assert.equal((await client.request()).networkServiceEndpointName, serving.name);
      refusing.knobs.failTimes = 0;
      await client.close();
    }
  } finally {
    await other.close();
  }
}

async function reselect(scene: Scene): Promise<void> {
  const { endpoint } = scene.sandbox;
  const pod = await scene.pod();
  const first = await pod.client.request();
  const other = scene.endpoint("nse-2");
  await other.start();
  const closes = endpoint.closes.length;
  const second = await pod.client.request({
    alter: ({ connection }) => {
      if (!connection) return;
      connection.state = State.RESELECT_REQUESTED;
      connection.networkServiceEndpointName = "nse-2";
    },
  });
  assert.equal(second.networkServiceEndpointName, "nse-2");
  assert.equal(endpoint.closes.length, closes + 1);
  assert.equal(second.path?.pathSegments[2]?.id, first.path?.pathSegments[2]?.id);
  const link = await pod.pod.link("nsm-1");
  assert.deepEqual(link?.addresses, second.context?.ipContext?.srcIpAddrs);
  await pod.client.close();
  assert.equal(other.closes.length, 1);
  await other.close();
}

async function stuckWrite(scene: Scene): Promise<void> {
  const { machine } = scene.sandbox;
  const [pod, other] = [await scene.pod(), await scene.pod()];
  const address = await unbound(scene, pod.tokenId);
  const letGo = machine.faults.stallWrite({ tree: "drivers", path: "igbvf/bind", text: address });
  const stuck = () => scene.forwarder.node.inventory.snapshot().find((vf) => vf.address === address);
  const client = scene.direct(pod);
  const request = client.request();
  await scene.serves(other); // meanwhile
  const given = (await request).mechanism?.parameters["pciAddress"];
  assert.notEqual(given, address);
  // The kernel has still time to end the write: it was not waited for.
  assert.match(stuck()?.problem ?? "", /still being bound/);
  assert.deepEqual([stuck()?.state, stuck()?.connectionId], ["quarantined", undefined]);
  letGo();
  await eventually(stuck, (vf) => vf?.problem === undefined && vf?.driver === "igbvf");
  await client.close();
}

async function onlyStuckWrite(scene: Scene): Promise<void> {
  const { machine } = scene.sandbox;
  const pods = [await scene.pod(), await scene.pod(), await scene.pod()];
  for (const { client } of pods) await client.request(); // no VF is left
  const last = await scene.pod();
  const address = await unbound(scene, last.tokenId);
  const letGo = machine.faults.stallWrite({ tree: "drivers", path: "igbvf/bind", text: address });
  const observations = () => scene.log.events.filter(({ event }) => event === "vf-not-replaced").length;
  const before = observations();
  const client = scene.direct(last);
  const request = client.request();
  await eventually(observations, (count) => count > before);
  letGo();
  assert.equal((await request).mechanism?.parameters["pciAddress"], address);
  for (const one of [client, ...pods.map((pod) => pod.client)]) await one.close();
}

/** An operator has taken the VF of the token from its driver: the next Request binds it. */
async function unbound(scene: Scene, tokenId: string): Promise<string> {
  const { inventory } = scene.forwarder.node;
  const vf = inventory.snapshot().find((one) => one.tokenId === tokenId);
  assert.ok(vf);
  await scene.sandbox.machine.drivers.writeText("igbvf/unbind", vf.address);
  scene.sandbox.changes.forget();
  scene.isMended = true;
  return vf.address;
}

function nothingLeft({ forwarder }: Scene): Promise<unknown> {
  return eventually(
    () => forwarder.nsm.connectionCount,
    (count) => count === 0,
  );
}
