import assert from "node:assert/strict";
import test, { type TestContext } from "node:test";
import { type Clock, systemClock } from "../async/index.ts";
import { recordingLog } from "../telemetry/recording-log.ts";
import { AdminError } from "./loopback.ts";
import { serveProfiles } from "./profiles.ts";

async function served(
  t: TestContext,
  clock: Clock = systemClock,
): Promise<(path: string, init?: RequestInit) => Promise<Response>> {
  const server = await serveProfiles({
    listenOn: { host: "localhost", port: 0 },
    clock,
    log: recordingLog(),
  });
  t.after(() => server.close());
  return (path, init) => fetch(`${server.url}${path}`, { ...init, headers: { connection: "close" } });
}

test("serveProfiles() gives a CPU profile in the form of DevTools that names what ran", async (t) => {
  // The requested second is over when this process has worked for half a second, however busy the machine is.
  const sleep = async () => {
    const before = process.cpuUsage();
    while (process.cpuUsage(before).user < 500_000) await someWork();
  };
  const ask = await served(t, { ...systemClock, sleep });
  const answer = await ask("/debug/pprof/profile?seconds=1");
  assert.match(answer.headers.get("content-disposition") ?? "", /filename="forwarder-\d+\.cpuprofile"/);
  const { nodes, samples, timeDeltas } = (await answer.json()) as {
    nodes: { callFrame: { functionName: string } }[];
    samples: number[];
    timeDeltas: number[];
  };
  assert.ok(nodes.some(({ callFrame }) => callFrame.functionName === "someWork"));
  assert.equal(samples.length, timeDeltas.length);
});

async function someWork(): Promise<void> {
  let sum = 0;
  for (let i = 0; i < 1e6; i++) sum += Math.sqrt(i);
  await new Promise((resolve) => setImmediate(resolve, sum));
}

test("serveProfiles() gives a heap profile, and one of a kind at a time", async (t) => {
  const ask = await served(t);
  let isOver = false;
  const answers = Promise.all([ask("/debug/pprof/heap?seconds=1"), ask("/debug/pprof/heap?seconds=1")]).finally(() => {
    isOver = true;
  });
  // When the sampling begins is not known: something must be made, and kept, for as long as it may last.
  const kept: unknown[] = [];
  while (!isOver) {
    kept.push(Array.from({ length: 10_000 }, (_, i) => ({ i })));
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  const [one, other] = await answers;
  assert.deepEqual([one.status, other.status].sort(), [200, 409]);
  const { head } = (await (one.status === 200 ? one : other).json()) as { head: { children: unknown[] } };
  assert.ok(head.children.length > 0 && kept.length > 0);
});

test("serveProfiles() refuses what it does not have, and names it", async (t) => {
  const ask = await served(t);
  assert.match(await (await ask("/")).text(), /cpuprofile.*\n.*heapprofile/);
  assert.equal((await ask("/debug/pprof/trace")).status, 404);
  assert.equal((await ask("/debug/pprof/profile?seconds=1e9")).status, 400);
  assert.equal((await ask("/debug/pprof/profile", { method: "POST" })).status, 405);
});

test("serveProfiles() listens on loopback only", async () => {
  const options = { listenOn: { host: "0.0.0.0", port: 0 }, clock: systemClock, log: recordingLog() };
  await assert.rejects(
    serveProfiles(options),
    (error) => error instanceof AdminError && /profiles on 0\.0\.0\.0/.test(error.message),
  );
});
