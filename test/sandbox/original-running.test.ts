import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";
import { test } from "node:test";
import { Sandbox } from "../../sandbox/sandbox.ts";
import { systemClock as clock } from "../../src/async/index.ts";
import { inNetns, listenUnix } from "../../src/kernel/index.ts";
import { silentLog } from "../../src/telemetry/index.ts";
import { recordingLog } from "../../src/telemetry/recording-log.ts";
import { needs } from "../needs.ts";
import { eventually } from "./scenes/story.ts";

test("a forwarder touches nothing as long as the Go original listens on its node, says so, and continues when that has ended", async (t) => {
  if (!needs(t, "netns", "veth", "bridge")) return;
  const log = recordingLog();
  const sandbox = await Sandbox.start({ machine: { realLinks: true }, log, peerLog: silentLog, clock });
  t.after(() => sandbox.stop());
  // Where the original's own /tmp is does not matter: its socket is one of the host's network namespace.
  const folder = `${sandbox.folder}/sriov-forwarder1234567`;
  mkdirSync(folder);
  const options = { mode: 0o777, onStream() {}, onError() {} };
  const original = inNetns(sandbox.machine.netns, () => listenUnix(`${folder}/listen_on.io.sock`, options));

  const starting = sandbox.startForwarder();
  const said = await eventually(
    () => log.events.find(({ event }) => event === "original-running"),
    (found) => found !== undefined,
  );
  assert.equal(said?.fields["socket"], `${folder}/listen_on.io.sock`);
  const page = log.events.find(({ event }) => event === "status-page")?.fields["url"];
  const answer = await fetch(`${page}/readyz`, { headers: { connection: "close" } });
  assert.deepEqual([answer.status, /^original-running: .*Go original/m.test(await answer.text())], [503, true]);
  assert.deepEqual(sandbox.changes.seen, []);
  assert.equal(sandbox.kubelet.registrations, 0);

  original.close();
  const { health } = await starting;
  assert.equal(health.ready.value, true);
});
