// What kubelet, other plugins and the folder do one after the other: no sockets, and time that passes when nothing else can happen.
import assert from "node:assert/strict";
import { basename } from "node:path";
import { type TestContext, test } from "node:test";
import { until } from "../../test/scenes/until.ts";
import { VirtualClock } from "../async/testing/virtual-clock.ts";
import { DevicePlugin, Registration } from "../gen/deviceplugin_pb.ts";
import type { Offer } from "../inventory/index.ts";
import { RpcClient, RpcError, type RpcServer, serveRpc, type Transport, unaryHandler } from "../rpc/index.ts";
import { MemoryTransport } from "../rpc/testing/memory-transport.ts";
import { Health, silentLog } from "../telemetry/index.ts";
import { recordingLog } from "../telemetry/recording-log.ts";
import { DevicePlugins } from "./device-plugins.ts";
import { socketName } from "./resource-name.ts";

const RESOURCE = "worker.domain/10G";
const OWN = socketName(RESOURCE);
const KUBELET = "kubelet.sock";

/** The folder where both listen: a socket that is not in it cannot be dialled, though its listener is still there. */
class Folder implements Transport {
  readonly path = "/plugins";
  readonly listeners = new Set<() => void>();
  readonly #network: MemoryTransport;
  readonly #files = new Map<string, string>();
  #made = 0;

  constructor(clock: VirtualClock) {
    this.#network = new MemoryTransport({ clock, random: { fraction: () => 0.5 }, longestMs: 2 });
  }

  identity = (name: string) => this.#files.get(name);
  identify = (target: string) => `${target} ${this.identity(basename(target))}`;

  onChange(listener: () => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  /** Another file, or none, under the name. */
  replace(name: string, file?: string): void {
    if (file === undefined) this.#files.delete(name);
    else this.#files.set(name, file);
    for (const listener of this.listeners) listener();
  }

  async listen(options: Parameters<Transport["listen"]>[0]) {
    const listener = await this.#network.listen(options);
    const [name, file] = [basename(options.url), `file-${++this.#made}`];
    this.replace(name, file);
    const close = () => {
      listener.close();
      if (this.identity(name) === file) this.replace(name);
    };
    return { ...listener, close };
  }

  async dial(options: Parameters<Transport["dial"]>[0]) {
    const file = this.identity(basename(options.target));
    if (!file?.startsWith("file-")) throw new RpcError("UNAVAILABLE", `no plugin listens at ${options.target}`);
    return await this.#network.dial(options);
  }
}

/** One life of kubelet. */
class PaperKubelet {
  readonly registeredMs: number[] = [];
  /** What it does with a registration. */
  mood: "follows" | "ignores" | "refuses" | "hangs" = "follows";
  lists = 0;
  readonly #folder: Folder;
  readonly #clock: VirtualClock;
  readonly client: RpcClient;
  #server: RpcServer | undefined;
  readonly #streams = new Set<{ cancel(): void }>();

  constructor(folder: Folder, clock: VirtualClock) {
    this.#folder = folder;
    this.#clock = clock;
    this.client = new RpcClient({ transport: folder, log: silentLog, clock, dialTimeoutMs: 1_000, idleMs: 1_000 });
  }

  async start(): Promise<void> {
    const register = unaryHandler(Registration.method.register, async ({ endpoint }, { signal }) => {
      this.registeredMs.push(this.#clock.monotonicMs());
      if (this.mood === "refuses") throw new Error("not today");
      if (this.mood === "hangs") await this.#clock.sleep(3_600_000, signal).catch(() => {});
      if (this.mood === "follows") void this.follow(endpoint);
      return {};
    });
    const url = `unix://${this.#folder.path}/${KUBELET}`;
    const [folder, clock] = [this.#folder, this.#clock];
    this.#server = await serveRpc({ url, handlers: [register], transport: folder, log: silentLog, clock });
  }

  /** Its socket has gone; it still follows. */
  async leaveSocket(): Promise<void> {
    await this.#server?.stop(0);
  }

  letGo(most = Number.POSITIVE_INFINITY): void {
    for (const stream of [...this.#streams].slice(0, most)) stream.cancel();
  }

  async stop(): Promise<void> {
    await this.leaveSocket();
    await this.client.close();
  }

  get follows(): number {
    return this.#streams.size;
  }

  async follow(endpoint: string): Promise<void> {
    const target = `unix://${this.#folder.path}/${endpoint}`;
    const stream = this.client.stream(target, DevicePlugin.method.listAndWatch, {});
    this.#streams.add(stream);
    try {
      for await (const list of stream) this.lists += list.devices.length > 0 ? 1 : 0;
    } catch {
      // Its plugin has gone, or it has let go.
    }
    this.#streams.delete(stream);
  }
}

async function world(
  t: TestContext,
  mood: PaperKubelet["mood"] = "follows",
  resources: readonly string[] = [RESOURCE],
) {
  const clock = new VirtualClock();
  const folder = new Folder(clock);
  const [log, health] = [recordingLog(), new Health(clock)];
  const kubelet = new PaperKubelet(folder, clock);
  kubelet.mood = mood;
  await kubelet.start();
  const seen = { streak: 0, queries: 0 };
  const offer: Offer = {
    resources: () => resources,
    devices: () => [{ id: "t1", healthy: true, numaNode: 0 } as ReturnType<Offer["devices"]>[number]],
    onChange: () => () => {},
    allocate() {},
    preferred: (_resource, { available, size }) => available.slice(0, size),
  };
  const foreign = { streak: () => seen.streak };
  const querySoon = () => void seen.queries++;
  const plugins = new DevicePlugins({ offer, folder, foreign, querySoon, transport: folder, clock, log, health });
  const codes = () => health.conditions().map(({ code }) => code);
  const kubelets = [kubelet];
  // Once all has ended nothing listens to the folder any more, and no socket of ours is left in it.
  t.after(async () => {
    await plugins.close();
    for (const one of kubelets) await one.stop();
    assert.deepEqual([folder.listeners.size, folder.identity(OWN)], [0, undefined]);
  });
  return {
    ...{ clock, folder, log, health, kubelet, seen, plugins, codes },
    async nextKubelet(): Promise<PaperKubelet> {
      const next = new PaperKubelet(folder, clock);
      kubelets.push(next);
      await next.start();
      return next;
    },
  };
}

test("a resource is registered once for as long as kubelet follows it", async (t) => {
  const { clock, kubelet, plugins, log, codes } = await world(t);
  await plugins.ready();
  await clock.sleep(120_000);
  assert.deepEqual([kubelet.registeredMs.length, kubelet.follows, plugins.registered.value], [1, 1, [RESOURCE]]);
  assert.ok(kubelet.lists >= 4, "the list is reported again each half a minute");
  assert.deepEqual([codes(), log.of("resource-registered").length], [[], 1]);
});

test("a resource that kubelet lets go of is the only one that is not registered any more", async (t) => {
  const { kubelet, plugins } = await world(t, "follows", [RESOURCE, "worker.domain/1G"]);
  await plugins.ready();
  assert.deepEqual(plugins.registered.value, [RESOURCE, "worker.domain/1G"]);
  kubelet.letGo(1);
  const left = await plugins.registered.next();
  assert.equal(left.length, 1);
  await plugins.ready();
  assert.equal(kubelet.follows, 2);
});

test("a new kubelet gets a registration and a socket of its own, though the one before still follows", async (t) => {
  const { clock, folder, kubelet, nextKubelet, plugins } = await world(t);
  await plugins.ready();
  const before = folder.identity(OWN);
  await kubelet.leaveSocket();
  await clock.sleep(2_000);
  assert.equal(kubelet.follows, 1);
  const next = await nextKubelet();
  await clock.sleep(1_000);
  assert.deepEqual([next.registeredMs.length, next.follows, kubelet.follows], [1, 1, 0]);
  assert.notEqual(folder.identity(OWN), before);
  assert.deepEqual(plugins.registered.value, [RESOURCE]);
});

for (const [says, file, isSame] of [
  ["stands", "stands", true],
  ["was removed", undefined, false],
  ["is another plugin's", "foreign", false],
] as const) {
  test(`a kubelet that let go of the list is offered it again, on ${isSame ? "the same" : "a new"} socket where ours ${says}`, async (t) => {
    const { clock, folder, kubelet, plugins, codes } = await world(t);
    await plugins.ready();
    await clock.sleep(10_000);
    const before = folder.identity(OWN);
    if (file !== "stands") folder.replace(OWN, file);
    kubelet.letGo();
    await until("nothing is registered", () => plugins.registered.value?.length === 0, { turn: () => clock.sleep(10) });
    assert.deepEqual(codes(), ["resource-not-registered"]);
    await plugins.ready();
    assert.deepEqual([kubelet.registeredMs.length, kubelet.follows, codes()], [2, 1, []]);
    assert.equal(folder.identity(OWN) === before, isSame);
  });
}

test("a kubelet that lets go of the list at once is offered it again after a short pause", async (t) => {
  const { clock, kubelet, plugins } = await world(t);
  await plugins.ready();
  kubelet.letGo();
  await clock.sleep(1_000);
  assert.deepEqual([kubelet.registeredMs.length, kubelet.follows], [2, 1]);
});

test("a kubelet that follows late and lets go of the list at once is given ever longer pauses all the same", async (t) => {
  const { clock, kubelet } = await world(t, "ignores");
  let pauseMs = 0;
  for (let round = 1; round <= 4; round++) {
    await until("it has registered", () => kubelet.registeredMs.length === round, { turn: () => clock.sleep(10) });
    await clock.sleep(4_500);
    void kubelet.follow(OWN);
    await until("it follows", () => kubelet.lists === round, { turn: () => clock.sleep(10) });
    await clock.sleep(1_000);
    const letGoMs = clock.monotonicMs();
    kubelet.letGo();
    await until("it has registered again", () => kubelet.registeredMs.length > round, { turn: () => clock.sleep(10) });
    pauseMs = clock.monotonicMs() - letGoMs;
  }
  assert.ok(pauseMs >= 80, `${pauseMs}`);
});

test("a kubelet that followed twice does not speak for the next one, which does not follow", async (t) => {
  const { clock, kubelet, nextKubelet, log, plugins } = await world(t);
  await plugins.ready();
  void kubelet.follow(OWN);
  await clock.sleep(1_000);
  assert.equal(kubelet.follows, 2);
  await kubelet.leaveSocket();
  const next = await nextKubelet();
  next.mood = "ignores";
  await clock.sleep(3_000);
  assert.deepEqual([next.registeredMs.length, kubelet.follows, log.of("resource-registered").length], [1, 0, 1]);
});

test("a kubelet that accepts and does not follow is reported once, and again when that comes back", async (t) => {
  const { clock, kubelet, log, codes, plugins } = await world(t, "ignores");
  await clock.sleep(60_000);
  assert.deepEqual(codes(), ["resource-not-registered"]);
  const logged = () =>
    log.events.filter(({ level, event }) => level === "warn" && event === "resource-not-registered").length;
  assert.equal(logged(), 1);
  assert.equal(log.of("resource-registered").length, 0);
  kubelet.mood = "follows";
  await plugins.ready();
  await clock.sleep(10_000);
  kubelet.mood = "ignores";
  kubelet.letGo();
  await clock.sleep(60_000);
  assert.equal(logged(), 2);
});

test("a kubelet that goes before it follows is not said to have failed, nor to have registered us", async (t) => {
  const { clock, kubelet, log, codes } = await world(t, "ignores");
  await clock.sleep(1_000);
  await kubelet.leaveSocket();
  await clock.sleep(10_000);
  assert.deepEqual([log.of("resource-registered"), log.of("resource-not-registered")], [[], []]);
  assert.deepEqual(codes(), ["resource-not-registered"], "there is no kubelet");
});

test("a new kubelet is not waited for because the one before has refused, and owes it no pause", async (t) => {
  const { clock, kubelet, nextKubelet } = await world(t, "refuses");
  await clock.sleep(60_000);
  const pauses = kubelet.registeredMs.map((atMs, at, all) => atMs - (all[at - 1] ?? atMs));
  assert.ok((pauses.at(-1) ?? 0) >= 2_500, pauses.join());
  const sinceMs = () => clock.monotonicMs() - (kubelet.registeredMs.at(-1) ?? 0);
  await until("a registration was tried just now", () => sinceMs() <= 500, { turn: () => clock.sleep(50) });
  await kubelet.leaveSocket();
  const startedMs = clock.monotonicMs();
  const next = await nextKubelet();
  next.mood = "refuses";
  await clock.sleep(500);
  const waited = next.registeredMs.map((atMs) => atMs - startedMs);
  assert.ok((waited[0] ?? 1_000) <= 20 && (waited[1] ?? 1_000) <= 60, waited.join());
});

test("a kubelet that has refused is left its pause, whatever else changes in the folder", async (t) => {
  const { clock, folder, kubelet } = await world(t, "refuses");
  await clock.sleep(60_000);
  const sinceMs = () => clock.monotonicMs() - (kubelet.registeredMs.at(-1) ?? 0);
  await until("a registration was tried just now", () => sinceMs() <= 500, { turn: () => clock.sleep(50) });
  const before = kubelet.registeredMs.length;
  for (let change = 0; change < 10; change++) {
    folder.replace("another.sock", `${change}`);
    await clock.sleep(100);
  }
  assert.equal(kubelet.registeredMs.length, before);
});

test("a resource that another plugin offers is left to it, and begun again when that has ended", async (t) => {
  const { clock, folder, kubelet, seen, plugins, log, codes } = await world(t);
  await plugins.ready();
  const before = folder.identity(OWN);
  seen.streak = 1; // an answer that may be older than our list
  await clock.sleep(5_000);
  assert.deepEqual([codes(), seen.queries], [[], 0]);
  seen.streak = 2;
  await clock.sleep(5_000);
  assert.deepEqual(codes(), ["resource-offered-elsewhere"]);
  assert.ok(seen.queries >= 4, "kubelet is asked again and again");
  seen.streak = 1;
  await clock.sleep(5_000);
  assert.deepEqual(codes(), ["resource-offered-elsewhere"], "one answer is enough to stay away");
  kubelet.letGo();
  await clock.sleep(30_000);
  assert.deepEqual([kubelet.registeredMs.length, log.of("resource-offered-elsewhere").length], [1, 1]);
  seen.streak = 0;
  await plugins.ready();
  await clock.sleep(1_000);
  assert.deepEqual([kubelet.registeredMs.length, kubelet.follows, codes()], [2, 1, []]);
  assert.notEqual(folder.identity(OWN), before);
});

test("a resource that another plugin offered while kubelet followed ours is registered again", async (t) => {
  const { clock, kubelet, seen, plugins } = await world(t);
  await plugins.ready();
  seen.streak = 2;
  await clock.sleep(2_000);
  seen.streak = 0;
  await clock.sleep(2_000);
  assert.deepEqual([kubelet.registeredMs.length, kubelet.follows], [2, 1]);
});

test("a resource that is not registered yet is left to another plugin after one answer of kubelet", async (t) => {
  const { clock, kubelet, seen, codes, nextKubelet } = await world(t, "refuses");
  await kubelet.leaveSocket();
  seen.streak = 1;
  await clock.sleep(2_000);
  const next = await nextKubelet();
  await clock.sleep(10_000);
  assert.deepEqual(next.registeredMs, []);
  assert.ok(codes().includes("resource-offered-elsewhere"));
});

test("DevicePlugins.close() takes its own end for no going of kubelet", async (t) => {
  const { log, plugins, codes } = await world(t);
  await plugins.ready();
  await plugins.close();
  assert.deepEqual([log.of("kubelet-gone"), codes()], [[], []]);
});

test("DevicePlugins.close() during a Register ends it, and takes its failure for none", async (t) => {
  const { clock, kubelet, log, plugins } = await world(t, "hangs");
  const gone = new AbortController();
  const waiting = assert.rejects(plugins.ready(gone.signal), /enough/);
  gone.abort(new Error("enough"));
  await waiting;
  await clock.sleep(1_000);
  assert.equal(kubelet.registeredMs.length, 1);
  const startedMs = clock.monotonicMs();
  await plugins.close();
  assert.ok(clock.monotonicMs() - startedMs < 1_000);
  assert.deepEqual(log.of("resource-not-registered"), []);
});

test("a kubelet that hangs in Register is tried again", async (t) => {
  const { clock, kubelet, log, plugins } = await world(t, "hangs");
  await clock.sleep(16_000);
  assert.match(String(log.of("resource-not-registered")[0]?.["problem"]), /15000 ms/);
  kubelet.mood = "follows";
  await plugins.ready();
});

test("kubelet may request a preference among thousands of devices", async (t) => {
  const { folder, kubelet, plugins } = await world(t);
  await plugins.ready();
  const availableDeviceIDs = Array.from({ length: 5_000 }, (_, at) => `${at}`.padStart(66, "x"));
  const containerRequests = [{ availableDeviceIDs, allocationSize: 1 }];
  const { getPreferredAllocation } = DevicePlugin.method;
  const { response } = await kubelet.client.call(`unix://${folder.path}/${OWN}`, getPreferredAllocation, {
    containerRequests,
  });
  assert.equal(response.containerResponses[0]?.deviceIDs.length, 1);
});
