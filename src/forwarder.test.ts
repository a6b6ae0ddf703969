import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { systemClock } from "./async/index.ts";
import { type ForwarderSettings, startForwarder } from "./forwarder.ts";
import { type HostFiles, lockFolder, Netns } from "./kernel/index.ts";
import { type Host, machineDoors } from "./node/index.ts";
import { type RecordingLog, recordingLog } from "./telemetry/recording-log.ts";

const nothing = { list: async () => [], exists: async () => false } as unknown as HostFiles;

/** A start on a node without physical functions and without a SPIRE agent. */
function begin(t: TestContext, log: RecordingLog, signal: AbortSignal) {
  const folder = mkdtempSync(join(tmpdir(), "forwarder-"));
  t.after(() => rmSync(folder, { recursive: true }));
  const settings: ForwarderSettings = {
    name: "fwd",
    networkServiceName: "forwarder",
    labels: {},
    connectTo: `unix://${folder}/nsmgr.sock`,
    dialTimeoutMs: 1_000,
    maxTokenLifetimeMs: 60_000,
    registryClientPolicies: ["etc/nsm/opa/common/.*.rego"],
    statePath: join(folder, "state"),
    spiffeEndpointSocket: `unix://${folder}/agent.sock`,
    devicePluginPath: folder,
    podResourcesPath: join(folder, "pods"),
    resourcePollTimeoutMs: 30_000,
    reconcileIntervalMs: 5_000,
    adminListenOn: { host: "127.0.0.1", port: 0 },
  };
  const uevents = { subscribe: () => () => {}, close() {} };
  const locks = { folder: lockFolder };
  const netns = Netns.current();
  t.after(() => netns.close());
  const openRtnl = () => ({ close() {} });
  const files = { devices: nothing, drivers: nothing, vfio: nothing };
  const host = { ...files, ...machineDoors(netns), netns, uevents, locks, openRtnl } as unknown as Host;
  const pfConfig = { physicalFunctions: [] };
  return startForwarder({ settings, pfConfig, host, clock: systemClock, log, signal });
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
  const ask = (path: string) => fetch(`${fields["url"]}${path}`, { headers: { connection: "close" } });

  const ready = await ask("/readyz");
  const text = await ready.text();
  assert.equal(ready.status, 503);
  assert.match(text, /^svid-missing: .*agent\.sock/m);
  assert.match(text, /^not-serving: Starting: retrieve the SVID/m);
  const alive = await ask("/healthz");
  assert.deepEqual([alive.status, await alive.text()], [200, "ok\n"]);

  stopping.abort(new Error("asked to stop"));
  await failed;
  await assert.rejects(ask("/healthz"), /fetch failed/);
});
