import assert from "node:assert/strict";
import { get } from "node:https";
import { test } from "node:test";
import { createTestCa, type TestCa } from "../../sandbox/identity/x509.ts";
import { countedClock } from "../../test/counted-clock.ts";
import { testIdentity } from "../../test/scenes/tls-identity.ts";
import type { AdminOptions } from "../admin/index.ts";
import { systemClock as clock, UndoStack } from "../async/index.ts";
import { Health as Probe, HealthCheckResponse_ServingStatus as Status } from "../gen/health_pb.ts";
import type { Identity } from "../identity/index.ts";
import { RpcClient } from "../rpc/index.ts";
import { createMetrics, Health, silentLog as log } from "../telemetry/index.ts";
import { recordingLog } from "../telemetry/recording-log.ts";
import { openAdmin } from "./admin-doors.ts";

test("openAdmin() tells a probe from the first moment on whether we are ready, and one that watches that we stop", async (t) => {
  const health = new Health(clock);
  const starting = health.condition("not-serving", "Starting");
  const undo = new UndoStack();
  const source = {
    view: () => assert.fail("no page was requested"),
    onChange: () => () => {},
  } as AdminOptions["source"];
  const listenOn = { host: "127.0.0.1", port: 0 };
  const options = { listenOn, health, metrics: createMetrics(), source, identity: () => undefined, clock, log };
  const { url } = await openAdmin(options, undo);
  const caller = new RpcClient({ log, clock, dialTimeoutMs: 5_000, idleMs: 5_000 });
  t.after(() => caller.close());
  const target = url.replace("http:", "tcp:");
  const check = async (service: string) => (await caller.call(target, Probe.method.check, { service })).response.status;
  const { SERVING, NOT_SERVING } = Status;
  assert.deepEqual(
    [await check(""), await check("readiness"), await check("liveness")],
    [NOT_SERVING, NOT_SERVING, SERVING],
  );
  starting.clear();
  assert.equal(await check(""), SERVING);
  const watching = caller.stream(target, Probe.method.watch, { service: "readiness" })[Symbol.asyncIterator]();
  assert.equal((await watching.next()).value?.status, SERVING);
  const ends = (async () => {
    for (;;) if ((await watching.next()).done === true) return;
  })();
  const [ended] = await Promise.all([assert.rejects(ends, /the server is stopping/), undo.unwind(() => assert.fail())]);
  assert.equal(ended, undefined);
  await assert.rejects(check(""), /UNAVAILABLE|Cannot connect/);
});

/** The status of /healthz for a client with this certificate, or why there is none. */
function statusFor(url: string, { certPem, keyPem }: { readonly certPem: string; readonly keyPem: string }) {
  const { port } = new URL(url);
  return new Promise<number | string | undefined>((resolve) => {
    const options = { host: "127.0.0.1", port, path: "/healthz", cert: certPem, key: keyPem, agent: false };
    const request = get({ ...options, rejectUnauthorized: false }, (answer) => {
      resolve(answer.resume().statusCode);
    });
    request.on("error", (error: NodeJS.ErrnoException) => resolve(error.code));
  });
}

test("openAdmin() off loopback admits peers of our trust domain only, whatever a trusted one of another has in its path", async () => {
  const [home, abroad] = [createTestCa("home.example"), createTestCa("abroad.example")];
  const id = "spiffe://home.example/forwarder";
  const recording = recordingLog();
  const identity = { current: { value: { id } }, ...testIdentity(home, id, [home, abroad]) } as unknown as Identity;
  const undo = new UndoStack();
  const source = { view: () => assert.fail("no page"), onChange: () => () => {} } as AdminOptions["source"];
  const doors = { listenOn: { host: "0.0.0.0", port: 0 }, identity: () => identity, log: recording };
  const counted = countedClock();
  const { url } = await openAdmin(
    { ...doors, health: new Health(clock), metrics: createMetrics(), source, clock: counted },
    undo,
  );
  const statusOf = (ca: TestCa, spiffeId: string) => statusFor(url, ca.issue({ spiffeId }));
  assert.equal(await statusOf(home, "spiffe://home.example/admin"), 200);
  for (const spiffeId of ["spiffe://abroad.example/home.example", "spiffe://home.example.abroad.example/admin"]) {
    assert.notEqual(await statusOf(abroad, spiffeId), 200, spiffeId);
    assert.match(String(recording.of("admin-connection-refused").at(-1)?.["error"]), /is not of our trust domain/);
  }
  assert.equal(counted.timerCount, 0, "no handshake is waited for any more");
  await undo.unwind(() => assert.fail());
});
