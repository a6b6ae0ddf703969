import assert from "node:assert/strict";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { type AddressInfo, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { Spire } from "../sandbox/identity/spire.ts";
import { WorkloadSocket } from "../sandbox/identity/workload-socket.ts";
import { PodResourcesServer } from "../sandbox/kubelet/pod-resources.ts";
import { type Clock, systemClock } from "./async/index.ts";
import { type ForwarderSettings, startForwarder } from "./forwarder.ts";
import { type HostFiles, lockFolder, Netns } from "./kernel/index.ts";
import { type Host, machineDoors } from "./node/index.ts";
import { silentLog } from "./telemetry/index.ts";
import { type RecordingLog, recordingLog } from "./telemetry/recording-log.ts";

const nothing = { list: async () => [], exists: async () => false } as unknown as HostFiles;

/** AllocatedTokens waits for so long. */
const FIRST_WORD_OF_KUBELET_MS = 3_000;

interface Changes {
  readonly clock?: Clock;
  readonly port?: number;
  readonly unixListeners?: Host["unixListeners"];
  readonly agentUrl?: string;
  readonly podResourcesPath?: string;
  /** Without it there are no device cgroups. */
  readonly openAccess?: () => object;
}

/** A start on a node without physical functions and without a SPIRE agent. */
function begin(t: TestContext, log: RecordingLog, signal: AbortSignal, changes: Changes = {}) {
  const folder = mkdtempSync(join(tmpdir(), "forwarder-"));
  t.after(() => rmSync(folder, { recursive: true }));
  const settings: ForwarderSettings = {
    name: "fwd",
    networkServices: ["sriovns", "forwarder"],
    labels: {},
    connectTo: `unix://${folder}/nsmgr.sock`,
    dialTimeoutMs: 1_000,
    maxTokenLifetimeMs: 60_000,
    registryClientPolicies: ["etc/nsm/opa/common/.*.rego"],
    statePath: join(folder, "state"),
    spiffeEndpointSocket: changes.agentUrl ?? `unix://${folder}/agent.sock`,
    devicePluginPath: folder,
    podResourcesPath: changes.podResourcesPath ?? join(folder, "pods"),
    resourcePollTimeoutMs: 30_000,
    reconcileIntervalMs: 5_000,
    adminListenOn: { host: "127.0.0.1", port: changes.port ?? 0 },
  };
  const uevents = { subscribe: () => () => {}, close() {} };
  const locks = { folder: lockFolder };
  const netns = Netns.current();
  t.after(() => netns.close());
  const openRtnl = () => ({ watch: () => () => {}, close() {} });
  const files = { devices: nothing, drivers: nothing, vfio: nothing };
  const doors = { ...machineDoors(netns), unixListeners: changes.unixListeners ?? (() => []) };
  const { openAccess } = changes;
  const host = { ...files, ...doors, netns, uevents, locks, openRtnl, openAccess } as unknown as Host;
  const pfConfig = { physicalFunctions: [] };
  return startForwarder({ settings, pfConfig, host, clock: changes.clock ?? systemClock, log, signal });
}

async function eventOf(log: RecordingLog, name: string, starting: Promise<unknown>) {
  let isOver = false;
  void starting
    .catch(() => {})
    .finally(() => {
      isOver = true;
    });
  for (;;) {
    const found = log.events.find(({ event }) => event === name);
    if (found) return found;
    assert.ok(!isOver, `the start is over without ${name}`);
    await new Promise(setImmediate);
  }
}

test("startForwarder() is not ready while it starts, says what it waits for, and leaves nothing when it is given up", async (t) => {
  const log = recordingLog();
  const stopping = new AbortController();
  const starting = begin(t, log, stopping.signal);
  const failed = assert.rejects(starting, /asked to stop/);
  const { fields } = await eventOf(log, "status-page", starting);
  await eventOf(log, "svid-awaited", starting);
  const get = (path: string) => fetch(`${fields["url"]}${path}`, { headers: { connection: "close" } });

  const ready = await get("/readyz");
  const text = await ready.text();
  assert.equal(ready.status, 503);
  assert.match(text, /^svid-missing: .*agent\.sock/m);
  assert.match(text, /^not-serving: Starting: retrieve the SVID/m);
  const alive = await get("/healthz");
  assert.deepEqual([alive.status, await alive.text()], [200, "ok\n"]);

  stopping.abort(new Error("asked to stop"));
  await failed;
  await assert.rejects(get("/healthz"), /fetch failed/);
});

test("startForwarder() tries its status page again where the port is free only after the state folder is, many times", async (t) => {
  const log = recordingLog();
  const taken = createServer().listen(0, "127.0.0.1");
  t.after(() => taken.close());
  await once(taken, "listening");
  let pauses = 0;
  const sleep: Clock["sleep"] = async (delayMs, signal) => {
    if (delayMs !== 100) return await systemClock.sleep(delayMs, signal);
    pauses += 1;
    if (pauses === 19) await new Promise((resolve) => taken.close(resolve));
  };
  const stopping = new AbortController();
  const { port } = taken.address() as AddressInfo;
  const starting = begin(t, log, stopping.signal, { port, clock: { ...systemClock, sleep } });
  const failed = assert.rejects(starting, /asked to stop/);
  await eventOf(log, "svid-awaited", starting);
  stopping.abort(new Error("asked to stop"));
  await failed;
  const shown = [{ url: `http://127.0.0.1:${port}` }];
  assert.deepEqual([log.of("status-page-off").length, log.of("status-page")], [20, shown]);
});

test("startForwarder() begins with nothing while the original runs on the node", async (t) => {
  const log = recordingLog();
  const stopping = new AbortController();
  const unixListeners = () => ["/tmp/sriov-forwarder1234567/listen_on.io.sock"];
  const starting = begin(t, log, stopping.signal, { unixListeners });
  const failed = assert.rejects(starting, /asked to stop/);
  await Promise.race(["original-running", "svid-awaited"].map((event) => eventOf(log, event, starting)));
  stopping.abort(new Error("asked to stop"));
  await failed;
  assert.deepEqual(log.of("svid-awaited"), []);
});

/** A start that has come to kubelet, which says nothing, and waits for it until `giveUp` is called. */
async function beginUpToKubelet(t: TestContext, log: RecordingLog, signal: AbortSignal, changes: Changes = {}) {
  const folder = mkdtempSync(join(tmpdir(), "peers-"));
  t.after(() => rmSync(folder, { recursive: true }));
  const spire = new Spire({ clock: systemClock });
  const common = { spire, log: silentLog, clock: systemClock };
  const agent = new WorkloadSocket({ ...common, socketPath: `${folder}/agent.sock`, spiffeIds: [spire.idOf("fwd")] });
  await agent.start();
  t.after(() => agent.stop());
  const podResourcesPath = join(folder, "pods");
  const lister = new PodResourcesServer({
    folder: podResourcesPath,
    log: silentLog,
    clock: systemClock,
    pods: () => [],
  });
  lister.mood = "silent";
  await lister.start();
  t.after(() => lister.stop());
  const awaited = Promise.withResolvers<() => void>();
  const after: Clock["after"] = (delayMs, callback) => {
    if (delayMs !== FIRST_WORD_OF_KUBELET_MS) return systemClock.after(delayMs, callback);
    awaited.resolve(callback);
    return { cancel() {} };
  };
  const peers = { agentUrl: agent.url, podResourcesPath };
  const starting = begin(t, log, signal, { ...changes, ...peers, clock: { ...systemClock, after } });
  const failed = assert.rejects(starting, /asked to stop/);
  const isOver = failed.then(() => assert.fail("the start is over before it has come to kubelet"));
  return { failed, giveUp: await Promise.race([awaited.promise, isOver]) };
}

test("startForwarder() fails by itself alone where its registration is given up while kubelet is still awaited", async (t) => {
  const stopping = new AbortController();
  const { failed, giveUp } = await beginUpToKubelet(t, recordingLog(), stopping.signal);
  stopping.abort(new Error("asked to stop"));
  // A rejection that has no handler by the next turn ends the process.
  await new Promise(setImmediate);
  giveUp();
  await failed;
});

test("startForwarder() ends the connections of pods that end, from before kubelet is awaited until it stops", async (t) => {
  const log = recordingLog();
  const stopping = new AbortController();
  const listeners = new Set<(connectionId: string) => void>();
  const onPodGone = (listener: (connectionId: string) => void) => {
    listeners.add(listener);
    return () => listeners.delete(listener);
  };
  const openAccess = () => ({ onPodGone, clearStrays: async () => {}, close() {} });
  const { failed, giveUp } = await beginUpToKubelet(t, log, stopping.signal, { openAccess });
  for (const listener of listeners) listener("of-ended-pod");
  assert.deepEqual(log.of("pod-has-ended"), [{ connection: "of-ended-pod" }]);
  stopping.abort(new Error("asked to stop"));
  giveUp();
  await failed;
  assert.equal(listeners.size, 0);
});
