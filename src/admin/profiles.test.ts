import assert from "node:assert/strict";
import { request } from "node:http";
import test, { type TestContext } from "node:test";
import { until, within } from "../../test/scenes/until.ts";
import { type Clock, systemClock } from "../async/index.ts";
import { HandClock } from "../nsm/testing/fakes.ts";
import { recordingLog } from "../telemetry/recording-log.ts";
import { AdminError } from "./loopback.ts";
import { serveProfiles } from "./profiles.ts";

async function served(t: TestContext, clock: Clock = systemClock) {
  const server = await serveProfiles({
    listenOn: { host: "localhost", port: 0 },
    clock,
    log: recordingLog(),
  });
  t.after(() => server.close());
  const get = (path: string, init?: RequestInit) =>
    fetch(`${server.url}${path}`, { ...init, headers: { connection: "close" } });
  return Object.assign(get, { url: server.url, close: () => server.close() });
}

test("serveProfiles() gives a CPU profile in the form of DevTools that names what ran", async (t) => {
  // The requested second is over when this process has worked for half a second, however busy the machine is.
  const sleep = async () => {
    const before = process.cpuUsage();
    while (process.cpuUsage(before).user < 500_000) await someWork();
  };
  const get = await served(t, { ...systemClock, sleep });
  const answer = await get("/debug/pprof/profile?seconds=1");
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
  const get = await served(t);
  let isOver = false;
  const answers = Promise.all([get("/debug/pprof/heap?seconds=1"), get("/debug/pprof/heap?seconds=1")]).finally(() => {
    isOver = true;
  });
  // When the sampling begins is not known: something must be made, and kept, for as long as it may last.
  const kept: unknown[] = [];
  const turn = () => {
    kept.push(Array.from({ length: 10_000 }, (_, i) => ({ i })));
    return new Promise((resolve) => setTimeout(resolve, 50));
  };
  await until("both heap profiles are answered", () => isOver, { turn });
  const [one, other] = await answers;
  assert.deepEqual([one.status, other.status].sort(), [200, 409]);
  const { head } = (await (one.status === 200 ? one : other).json()) as { head: { children: unknown[] } };
  assert.ok(head.children.length > 0 && kept.length > 0);
});

test("serveProfiles() takes a profile no longer whose reader has gone, and another may begin; its end ends what is under way", async (t) => {
  const clock = new HandClock();
  const get = await served(t, clock);
  const heap = "/debug/pprof/heap?seconds=1";
  const begun = () => until("it is being taken", () => clock.timerCount === 1);
  const leave = new AbortController();
  const leaving = assert.rejects(get(heap, { signal: leave.signal }));
  await begun();
  leave.abort();
  await leaving;
  await until("nothing is taken", () => clock.timerCount === 0);
  const whole = within("the profile of another", get(heap));
  await begun();
  await clock.pass(1_000);
  assert.equal((await whole).status, 200);
  const cut = assert.rejects(within("the connection ends", get(heap)));
  await begun();
  await within("it has closed", get.close());
  await cut;
  await until("nothing is taken any more", () => clock.timerCount === 0);
});

test("serveProfiles() answers no page of another site, whose name was made to lead here", async (t) => {
  const { url } = await served(t);
  const status = await new Promise((resolve, reject) => {
    const sent = request(`${url}/debug/pprof/`, { headers: { host: "evil.example:6060" } }, (answer) => {
      resolve(answer.resume().statusCode);
    });
    sent.on("error", reject).end();
  });
  assert.equal(status, 421);
});

test("serveProfiles() refuses what it does not have, and names it", async (t) => {
  const get = await served(t);
  assert.match(await (await get("/")).text(), /cpuprofile.*\n.*heapprofile/);
  assert.equal((await get("/debug/pprof/trace")).status, 404);
  assert.equal((await get("/debug/pprof/profile?seconds=1e9")).status, 400);
  assert.equal((await get("/debug/pprof/profile", { method: "POST" })).status, 405);
});

test("serveProfiles() listens on loopback only, and says why and what to do instead", async () => {
  const options = { listenOn: { host: "0.0.0.0", port: 0 }, clock: systemClock, log: recordingLog() };
  await assert.rejects(
    serveProfiles(options),
    (error) =>
      error instanceof AdminError &&
      /profiles on 0\.0\.0\.0: it has no access control.*forward the port/.test(error.message),
  );
});
