import assert from "node:assert/strict";
import { existsSync, linkSync, mkdtempSync, readdirSync, rmSync, statSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { Kubelet } from "../../sandbox/kubelet/kubelet.ts";
import { countedClock } from "../../test/counted-clock.ts";
import { until } from "../../test/scenes/until.ts";
import { type Clock, systemClock } from "../async/index.ts";
import { DevicePlugin, Registration } from "../gen/deviceplugin_pb.ts";
import type { DeviceView, Offer, PreferenceRequest } from "../inventory/index.ts";
import { watchFolder } from "../kernel/index.ts";
import { RpcClient, serveRpc, unaryHandler } from "../rpc/index.ts";
import { Health, silentLog } from "../telemetry/index.ts";
import { recordingLog } from "../telemetry/recording-log.ts";
import { DevicePlugins } from "./device-plugins.ts";
import { socketName } from "./resource-name.ts";

const FAST = "worker.domain/10G";
const SLOW = "worker.domain/1G";

/** Devices that a test changes by hand. */
class Tokens implements Offer {
  readonly all = new Map<string, DeviceView[]>();
  readonly allocated: string[] = [];
  readonly #listeners = new Set<(resources: ReadonlySet<string>) => void>();

  constructor(...resources: readonly string[]) {
    for (const name of resources) this.offer(name);
  }

  offer(resource: string): void {
    const about = { healthy: true, allocated: false, address: undefined };
    const device = (index: number) => ({ ...about, id: `${resource}-${index}`, numaNode: index % 2 });
    this.all.set(resource, [0, 1, 2, 3].map(device));
    this.publish();
  }

  setHealth(resource: string, index: number, healthy: boolean): void {
    const devices = this.all.get(resource) ?? [];
    this.all.set(resource, devices.with(index, { ...(devices[index] as DeviceView), healthy }));
    this.publish();
  }

  publish(): void {
    for (const listener of this.#listeners) listener(new Set(this.all.keys()));
  }

  get listenerCount(): number {
    return this.#listeners.size;
  }

  resources = () => [...this.all.keys()];
  devices = (resource: string) => this.all.get(resource) ?? [];
  preferred = (_resource: string, { available, size }: PreferenceRequest) => available.toReversed().slice(0, size);

  onChange(listener: (resources: ReadonlySet<string>) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  allocate(_resource: string, ids: readonly string[]): void {
    if (ids.some((id) => id.endsWith("-0"))) throw new Error("no VF is left for that token");
    this.allocated.push(...ids);
  }
}

function pluginFolder(t: TestContext): string {
  const base = mkdtempSync(join(tmpdir(), "plugins-"));
  t.after(() => rmSync(base, { recursive: true }));
  return join(base, "device-plugins");
}

function startPlugins(t: TestContext, path: string, offer: Offer, timeOf: Clock = systemClock) {
  const clock = countedClock(timeOf);
  const log = recordingLog();
  const health = new Health(clock);
  const folder = watchFolder(path, clock);
  const plugins = new DevicePlugins({ offer, folder, clock, log, health });
  t.after(async () => {
    await plugins.close();
    folder.close();
    assert.equal(clock.timerCount, 0, "timers that outlive the plugins");
    if (offer instanceof Tokens) assert.equal(offer.listenerCount, 0, "listeners that outlive the plugins");
  });
  return { plugins, log, health };
}

async function startKubelet(t: TestContext, folder: string): Promise<Kubelet> {
  const kubelet = new Kubelet({ folder, log: silentLog, clock: systemClock });
  await kubelet.start();
  t.after(() => kubelet.stop());
  return kubelet;
}

/**
 * How long each timer was to run. Time passes by timers that fire and by nothing else: what is left of a wait is the whole of it,
 * however busy the machine is.
 */
function recordingTimers(): { readonly clock: Clock; readonly setMs: readonly number[] } {
  const setMs: number[] = [];
  let passedMs = 0;
  const after: Clock["after"] = (delayMs, callback) => {
    setMs.push(delayMs);
    const dueMs = passedMs + delayMs;
    return systemClock.after(delayMs, () => {
      passedMs = Math.max(passedMs, dueMs);
      callback();
    });
  };
  return { clock: { ...systemClock, after, monotonicMs: () => passedMs }, setMs };
}

/** A backoff has waited for each of these steps, from a half of it to the whole. */
function assertWaited(setMs: readonly number[], steps: readonly number[]): void {
  for (const step of steps) {
    assert.ok(
      setMs.some((delayMs) => delayMs >= step / 2 && delayMs <= step),
      `no wait of ${step} ms among ${setMs}`,
    );
  }
}

const allHealthy = (devices: readonly { healthy: boolean }[]) =>
  devices.length === 4 && devices.every((device) => device.healthy);

test("DevicePlugins offers each resource with NUMA nodes on a socket of its own, for root only", async (t) => {
  const folder = pluginFolder(t);
  const kubelet = await startKubelet(t, folder);
  const { plugins, health } = startPlugins(t, folder, new Tokens(SLOW, FAST));
  await plugins.ready();
  assert.deepEqual(plugins.registered.value, [FAST, SLOW], "sorted");
  const devices = await kubelet.until(FAST, allHealthy);
  assert.deepEqual(devices[1], { id: `${FAST}-1`, healthy: true, numaNode: 1 });
  await kubelet.until(SLOW, allHealthy);
  assert.equal(statSync(join(folder, socketName(FAST))).mode & 0o777, 0o600);
  assert.deepEqual(health.conditions(), []);
});

test("DevicePlugins waits for a kubelet that comes late, and says so", async (t) => {
  const folder = pluginFolder(t);
  const { plugins, health } = startPlugins(t, folder, new Tokens(FAST));
  await until("the missing kubelet is a condition", () => health.conditions().length > 0);
  assert.match(String(health.conditions()[0]?.sentence), /there is no .*kubelet.sock. Is kubelet running/);
  const kubelet = await startKubelet(t, folder);
  await kubelet.until(FAST, allHealthy);
  await plugins.ready();
  assert.deepEqual(health.conditions(), []);
});

test("DevicePlugins is back with the full list after every restart of kubelet", async (t) => {
  const folder = pluginFolder(t);
  const kubelet = await startKubelet(t, folder);
  const { plugins } = startPlugins(t, folder, new Tokens(FAST, SLOW));
  for (let round = 0; round < 5; round++) {
    await Promise.all([kubelet.until(FAST, allHealthy), kubelet.until(SLOW, allHealthy)]);
    await kubelet.restart();
  }
  await Promise.all([kubelet.until(FAST, allHealthy), kubelet.until(SLOW, allHealthy)]);
  await plugins.ready();
  assert.equal(kubelet.registrations, 12);
});

test("DevicePlugins comes back when its socket was removed and kubelet has let go", async (t) => {
  const folder = pluginFolder(t);
  const kubelet = await startKubelet(t, folder);
  const { plugins } = startPlugins(t, folder, new Tokens(FAST));
  await plugins.ready();
  await kubelet.stop();
  for (const name of readdirSync(folder)) rmSync(join(folder, name));
  await kubelet.start();
  await kubelet.until(FAST, allHealthy);
});

test("DevicePlugins notifies kubelet of every change, and of a resource that comes later", async (t) => {
  const folder = pluginFolder(t);
  const kubelet = await startKubelet(t, folder);
  const tokens = new Tokens(FAST);
  startPlugins(t, folder, tokens);
  await kubelet.until(FAST, allHealthy);
  tokens.setHealth(FAST, 2, false);
  const devices = await kubelet.until(FAST, (list) => !allHealthy(list));
  assert.deepEqual(
    devices.map(({ healthy }) => healthy),
    [true, true, false, true],
  );
  tokens.setHealth(FAST, 2, true);
  await kubelet.until(FAST, allHealthy);
  tokens.offer(SLOW);
  await kubelet.until(SLOW, allHealthy);
});

test("DevicePlugins gives tokens to pods by its preference and reserves them", async (t) => {
  const folder = pluginFolder(t);
  const kubelet = await startKubelet(t, folder);
  const tokens = new Tokens(FAST);
  const { log } = startPlugins(t, folder, tokens);
  await kubelet.until(FAST, allHealthy);
  const { envs } = await kubelet.allocate({ pod: "a", resource: FAST, count: 2 });
  assert.deepEqual(envs, { [`NSM_SRIOV_TOKENS_${FAST}`]: `${FAST}-3,${FAST}-2` });
  assert.deepEqual(tokens.allocated, [`${FAST}-3`, `${FAST}-2`]);
  await kubelet.restart();
  await kubelet.until(FAST, allHealthy);
  const second = await kubelet.allocate({ pod: "b", resource: FAST });
  assert.deepEqual(second.ids, [`${FAST}-1`]);
  await assert.rejects(kubelet.allocate({ pod: "c", resource: FAST }), /no VF is left for that token/);
  assert.doesNotMatch(JSON.stringify(log.events), new RegExp(`${FAST}-\\d`)); // ids are secrets
});

test("DevicePlugins answers with what must be included even where its source prefers nonsense", async (t) => {
  const folder = pluginFolder(t);
  await startKubelet(t, folder);
  const tokens = new Tokens(FAST);
  tokens.preferred = () => ["unknown", "ids"];
  const { plugins, log } = startPlugins(t, folder, tokens);
  await plugins.ready();
  const client = new RpcClient({ log: silentLog, clock: systemClock, dialTimeoutMs: 60_000, idleMs: 1000 });
  t.after(() => client.close());
  const request = { availableDeviceIDs: ["a", "b", "c"], mustIncludeDeviceIDs: ["c"], allocationSize: 2 };
  const target = `unix://${folder}/${socketName(FAST)}`;
  const requested = { containerRequests: [request] };
  const { response } = await client.call(target, DevicePlugin.method.getPreferredAllocation, requested);
  assert.deepEqual(response.containerResponses[0]?.deviceIDs, ["c", "a"]);
  assert.equal(log.of("preference-invalid").length, 1);
  await client.call(target, DevicePlugin.method.preStartContainer, { devicesIds: ["a"] });
});

test("DevicePlugins tries again after a refusal, and never gives up", async (t) => {
  const folder = pluginFolder(t);
  const { clock, setMs } = recordingTimers();
  let calls = 0;
  const handlers = [
    unaryHandler(Registration.method.register, async () => {
      calls += 1;
      throw new Error("not today");
    }),
  ];
  const url = `unix://${folder}/kubelet.sock`;
  const server = await serveRpc({ url, handlers, log: silentLog, clock: systemClock });
  t.after(() => server.stop(0));
  const { log, health } = startPlugins(t, folder, new Tokens(FAST), clock);
  await until("Register was called four times", () => calls >= 4);
  assertWaited(setMs, [20, 40, 80]);
  assert.equal(log.of("resource-not-registered")[0]?.["problem"], "not today");
  assert.deepEqual(
    health.conditions().map(({ code, subject }) => [code, subject]),
    [["resource-not-registered", FAST]],
  );
  await server.stop(0);
  const kubelet = await startKubelet(t, folder);
  await kubelet.until(FAST, allHealthy);
});

test("DevicePlugins takes its time with a kubelet that lets go of the list again and again", async (t) => {
  const folder = pluginFolder(t);
  const client = new RpcClient({ log: silentLog, clock: systemClock, dialTimeoutMs: 60_000, idleMs: 1000 });
  const { clock, setMs } = recordingTimers();
  let calls = 0;
  const handlers = [
    unaryHandler(Registration.method.register, async ({ endpoint }) => {
      calls += 1;
      const stream = client.stream(`unix://${folder}/${endpoint}`, DevicePlugin.method.listAndWatch, {});
      void stream[Symbol.asyncIterator]()
        .next()
        .then(
          () => stream.cancel(),
          () => {}, // the client was closed, the test is over
        );
      return {};
    }),
  ];
  const url = `unix://${folder}/kubelet.sock`;
  const server = await serveRpc({ url, handlers, log: silentLog, clock: systemClock });
  t.after(async () => {
    await client.close();
    await server.stop(0);
  });
  startPlugins(t, folder, new Tokens(FAST), clock);
  await until("Register was called five times", () => calls >= 5);
  assertWaited(setMs, [20, 40, 80, 160]);
});

test("DevicePlugins sees that kubelet has gone while its Register was still under way", async (t) => {
  const folder = pluginFolder(t);
  const client = new RpcClient({ log: silentLog, clock: systemClock, dialTimeoutMs: 60_000, idleMs: 1000 });
  let calls = 0;
  const handlers = [
    unaryHandler(Registration.method.register, async ({ endpoint }) => {
      calls += 1;
      const target = `unix://${folder}/${endpoint}`;
      const stream = client.stream(target, DevicePlugin.method.listAndWatch, {});
      await stream[Symbol.asyncIterator]().next();
      stream.cancel();
      // On the same connection: the plugin hears of the end before this, and of the answer after it.
      await client.call(target, DevicePlugin.method.getDevicePluginOptions, {});
      return {};
    }),
  ];
  const url = `unix://${folder}/kubelet.sock`;
  const server = await serveRpc({ url, handlers, log: silentLog, clock: systemClock });
  t.after(async () => {
    await client.close();
    await server.stop(0);
  });
  const { log } = startPlugins(t, folder, new Tokens(FAST));
  await until("Register was called five times", () => calls >= 5);
  assert.deepEqual(log.of("resource-not-registered"), [], "it has followed the list, and was waited for all the same");
});

test("DevicePlugins takes over the socket that a dead process left", async (t) => {
  const folder = pluginFolder(t);
  const kubelet = await startKubelet(t, folder);
  const path = join(folder, socketName(FAST));
  await leaveStaleSocket(path);
  assert.equal(existsSync(path), true);
  startPlugins(t, folder, new Tokens(FAST));
  await kubelet.until(FAST, allHealthy);
});

test("DevicePlugins refuses a name that kubelet would not take, and offers the others", async (t) => {
  const folder = pluginFolder(t);
  const kubelet = await startKubelet(t, folder);
  const { plugins, log, health } = startPlugins(t, folder, new Tokens("Bad_Domain/10G", FAST));
  await kubelet.until(FAST, allHealthy);
  await plugins.ready();
  assert.equal(log.of("resource-name-refused").length, 1);
  assert.deepEqual(
    health.conditions().map(({ code }) => code),
    ["resource-name-refused"],
  );
});

test("DevicePlugins.close() ends the list and leaves neither a socket nor a listener behind", async (t) => {
  const folder = pluginFolder(t);
  const kubelet = await startKubelet(t, folder);
  const tokens = new Tokens(FAST);
  const { plugins } = startPlugins(t, folder, tokens);
  await kubelet.until(FAST, allHealthy);
  await plugins.close();
  await kubelet.until(FAST, (devices) => devices.every(({ healthy }) => !healthy));
  assert.deepEqual(
    readdirSync(folder).filter((name) => name.endsWith(".sock")),
    ["kubelet.sock"],
  );
  assert.equal(tokens.listenerCount, 0);
});

/** A socket file without a listener: what a killed process leaves. */
async function leaveStaleSocket(path: string): Promise<void> {
  const spare = `${path}.spare`;
  const server = createServer().listen(path);
  await new Promise((resolve) => server.once("listening", resolve));
  linkSync(path, spare);
  await new Promise((resolve) => server.close(resolve));
  linkSync(spare, path);
  rmSync(spare);
}
