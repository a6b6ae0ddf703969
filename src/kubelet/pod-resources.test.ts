import assert from "node:assert/strict";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { type ListedPod, PodResourcesServer } from "../../sandbox/kubelet/pod-resources.ts";
import { countedClock } from "../../test/counted-clock.ts";
import { systemClock } from "../async/index.ts";
import { Health, silentLog } from "../telemetry/index.ts";
import { recordingLog } from "../telemetry/recording-log.ts";
import { PodResources, type PodResourcesState } from "./pod-resources.ts";

const web: ListedPod = {
  namespace: "default",
  name: "web",
  containers: [{ name: "app", devices: [{ resourceName: "worker.domain/10G", deviceIds: ["t1", "t2"] }] }],
};

function startServer(t: TestContext, pods: readonly ListedPod[] = [web]): PodResourcesServer {
  const folder = mkdtempSync(join(tmpdir(), "pods-"));
  const server = new PodResourcesServer({ folder, log: silentLog, clock: systemClock, pods: () => pods });
  folders.set(server, folder);
  t.after(async () => {
    await server.stop();
    rmSync(folder, { recursive: true });
  });
  return server;
}
const folders = new WeakMap<PodResourcesServer, string>();

function startPoller(t: TestContext, server: PodResourcesServer, intervalMs: number) {
  const [clock, log, health] = [countedClock(), recordingLog(), new Health(systemClock)];
  const resources = new PodResources({
    folder: `${folders.get(server)}/`,
    intervalMs,
    clock,
    log,
    health,
  });
  t.after(async () => {
    await resources.close();
    assert.equal(clock.timerCount, 0, "timers that outlive the questions");
  });
  return { resources, state: resources.state, log, health };
}

async function until(
  { state }: { readonly state: { next(): Promise<PodResourcesState>; value: PodResourcesState | undefined } },
  kind: PodResourcesState["kind"],
): Promise<PodResourcesState> {
  let now = state.value ?? (await state.next());
  while (now.kind !== kind) now = await state.next();
  return now;
}

for (const versions of [["v1"], ["v1alpha1"], ["v1", "v1alpha1"]] as const) {
  test(`PodResources reads who has what from a kubelet with ${versions.join(" and ")}`, async (t) => {
    const server = startServer(t);
    server.versions = versions;
    await server.start();
    const state = await until(startPoller(t, server, 60_000), "known");
    const holder = { resource: "worker.domain/10G", pod: "default/web", container: "app" };
    assert.deepEqual(state, {
      kind: "known",
      holdings: { pods: new Set(["default/web"]), devices: new Map(["t1", "t2"].map((id) => [id, holder])) },
    });
  });
}

test("PodResources reports once a kubelet that fails, and continues by itself", async (t) => {
  const server = startServer(t);
  const poller = startPoller(t, server, 100);
  await until(poller, "unknown");
  await server.start();
  await until(poller, "known");
  for (const mood of ["limited", "failing", "empty"] as const) {
    server.mood = mood;
    await until(poller, "unknown");
    await poller.state.next();
    assert.deepEqual(
      poller.health.conditions().map(({ code }) => code),
      ["pod-resources-unknown"],
      mood,
    );
    server.mood = "well";
    await until(poller, "known");
    assert.deepEqual(poller.health.conditions(), [], mood);
  }
  const reported = poller.log.events.filter(({ level }) => level === "warn" || level === "error");
  assert.equal(reported.length, 4);
});

test("PodResources reads a list that is longer than gRPC allows by default, as kubelet's own client does", async (t) => {
  const name = "n".repeat(200);
  const pods = Array.from({ length: 25_000 }, (_, at) => ({ ...web, name: `${name}${at}`, containers: [] }));
  const server = startServer(t, [...pods, web]);
  await server.start();
  const state = await until(startPoller(t, server, 60_000), "known");
  assert.ok(state.kind === "known" && state.holdings.pods.size === 25_001 && state.holdings.devices.has("t1"));
});

for (const [what, talk] of [
  [
    "speaks something else",
    (socket: Socket) => void socket.end("HTTP/1.1 400 Bad Request\r\n\r\n", () => socket.destroy()),
  ],
  ["hangs up", (socket: Socket) => socket.destroy()],
] as const) {
  test(`PodResources reports once a socket whose owner ${what}, and continues when kubelet is back`, async (t) => {
    const server = startServer(t);
    const foreign = createServer((socket) => talk(socket.on("error", () => {})));
    foreign.listen(`${folders.get(server)}/kubelet.sock`);
    await once(foreign, "listening");
    const poller = startPoller(t, server, 100);
    for (let times = 0; times < 3; times += 1) await poller.state.next();
    assert.equal(poller.state.value?.kind, "unknown");
    foreign.close();
    await server.start();
    await until(poller, "known");
    assert.deepEqual(
      poller.log.events.filter(({ level }) => level !== "debug").map(({ event }) => event),
      ["pod-resources-unknown", "pod-resources-known"],
    );
  });
}
