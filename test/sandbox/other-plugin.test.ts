import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { SANDBOX_RESOURCE, Sandbox } from "../../sandbox/sandbox.ts";
import { systemClock as clock } from "../../src/async/index.ts";
import { DevicePlugin, Registration } from "../../src/gen/deviceplugin_pb.ts";
import { RpcClient, serveRpc, streamHandler, unaryHandler } from "../../src/rpc/index.ts";
import { silentLog as log } from "../../src/telemetry/index.ts";
import { recordingLog } from "../../src/telemetry/recording-log.ts";
import { eventually } from "./scenes/story.ts";

const POLL_MS = 150;
const THEIRS = "0000:3b:02.1"; // as sriov-network-device-plugin calls it

async function startNode(t: TestContext) {
  const own = recordingLog();
  const settings = { resourcePollTimeoutMs: POLL_MS };
  const sandbox = await Sandbox.start({ machine: { vfsPerPf: 2 }, settings, log: own, peerLog: log, clock });
  t.after(() => sandbox.stop());
  return { sandbox, own };
}

/** Another device plugin for our resource, as a peer of kubelet. Resolves when kubelet has its list; ends by what it answers. */
async function startOther({ kubelet, folder }: Sandbox): Promise<() => Promise<void>> {
  const { method } = DevicePlugin;
  const handlers = [
    unaryHandler(method.getDevicePluginOptions, async () => ({})),
    streamHandler(method.listAndWatch, async function* (_request, call) {
      yield { devices: [{ ID: THEIRS, health: "Healthy" }] };
      await clock.sleep(3_600_000, call.signal).catch(() => {});
    }),
    unaryHandler(method.allocate, async () => ({ containerResponses: [{ envs: { THEIRS } }] })),
  ];
  const server = await serveRpc({ url: `unix://${folder}/plugins/other.sock`, handlers, log, clock });
  const client = new RpcClient({ log, clock, dialTimeoutMs: 60_000, idleMs: 1_000 });
  const request = { version: "v1beta1", endpoint: "other.sock", resourceName: SANDBOX_RESOURCE };
  await client.call(`unix://${folder}/plugins/kubelet.sock`, Registration.method.register, request);
  await client.close();
  await kubelet.until(SANDBOX_RESOURCE, (devices) => devices.some(({ id }) => id === THEIRS));
  return () => server.stop(0);
}

const offeredElsewhere = ({
  health,
}: {
  health: { conditions(): readonly { code: string; subject: string | undefined }[] };
}) =>
  health
    .conditions()
    .some(({ code, subject }) => code === "resource-offered-elsewhere" && subject === SANDBOX_RESOURCE);

const ours = ({ kubelet }: Sandbox) =>
  (kubelet.devices.value?.get(SANDBOX_RESOURCE) ?? []).filter(({ id, healthy }) => healthy && id !== THEIRS).length;

test("a resource that another device plugin offers is not registered over it, reported, and offered when that has ended", async (t) => {
  const { sandbox } = await startNode(t);
  const endOther = await startOther(sandbox);
  const forwarder = await sandbox.startForwarder();
  await sandbox.kubelet.until("worker.domain/intel", (devices) => devices.length === 4);
  await eventually(
    () => offeredElsewhere(forwarder),
    (isSo) => isSo,
  );
  assert.deepEqual(
    sandbox.kubelet.devices.value?.get(SANDBOX_RESOURCE)?.map(({ id }) => id),
    [THEIRS],
  );
  assert.equal(sandbox.kubelet.registrations, 2);
  assert.equal((await sandbox.kubelet.allocate({ pod: "web", resource: SANDBOX_RESOURCE })).envs["THEIRS"], THEIRS);

  await endOther();
  await eventually(
    () => ours(sandbox),
    (count) => count === 4,
  );
  assert.equal(offeredElsewhere(forwarder), false);
});

test("another device plugin that comes later is reported and not fought, and what was ours is again when it has ended", async (t) => {
  const { sandbox, own } = await startNode(t);
  const { kubelet } = sandbox;
  const forwarder = await sandbox.startForwarder();
  await eventually(
    () => ours(sandbox),
    (count) => count === 4,
  );
  const endOther = await startOther(sandbox);
  await eventually(
    () => offeredElsewhere(forwarder),
    (isSo) => isSo,
  );
  const { registrations } = kubelet;
  const { calls } = kubelet.podResources;
  await eventually(
    () => kubelet.podResources.calls,
    (now) => now >= calls + 3,
  );
  assert.equal(kubelet.registrations, registrations);
  assert.equal(own.events.filter(({ event }) => event === "resource-offered-elsewhere").length, 1);

  await endOther();
  await eventually(
    () => [ours(sandbox), offeredElsewhere(forwarder)].join(),
    (seen) => seen === "4,false",
  );
  const { ids } = await kubelet.allocate({ pod: "web", resource: SANDBOX_RESOURCE });
  assert.match(ids[0] ?? "", /^sriov-/);
});
