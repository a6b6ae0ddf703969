// An error in any callback that the outside calls costs one connection, one call or one event: the process lives, others are served.
import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, test } from "node:test";
import {
  systemClock as clock,
  type EscapedError,
  type EventSource,
  eventSources,
  guardProbe,
  onEscapedError,
} from "../../src/async/index.ts";
import { NetworkService } from "../../src/gen/networkservice_pb.ts";
import { BlockingWrites, openUevents } from "../../src/kernel/index.ts";
import { RpcClient, serveRpc, unaryHandler } from "../../src/rpc/index.ts";
import { createMetrics, silentLog } from "../../src/telemetry/index.ts";
import { needs } from "../needs.ts";
import { eventually, type Scene, sharedScene } from "./scenes/story.ts";

const metrics = createMetrics();
const shared = sharedScene({ metrics });

/** Throws in so many callbacks of the source from now on; counts those that did. */
function inject(source: EventSource, times: number): () => number {
  let thrown = 0;
  guardProbe.before = (called) => {
    if (called !== source || thrown === times) return;
    thrown += 1;
    throw new Error(`injected ${source}`);
  };
  return () => thrown;
}

/** Of a call whose connection may be lost without a word; as long as none comes to the callback, each has twice the time. */
const SHORTEST_LIMIT_MS = 2_000;
/** Of a call that is to be answered. */
const LIMIT_MS = 60_000;

/** What calls each source; a call may fail, for its connection is what the error costs. */
const traffic: Readonly<Record<EventSource, (scene: Scene, limitMs: number) => Promise<unknown>>> = {
  abort: request,
  "admin-http": status,
  "admin-socket": status,
  "file-watch": touch,
  "http2-session": request,
  "http2-stream": request,
  "kernel-socket": uevents,
  "kernel-write": write,
  poll: request,
  tcp: callByTcp,
  timer: impatient,
  tls: request,
  "unix-listener": request,
  "unix-stream": request,
};

describe("an error in a callback of", () => {
  after(() => shared.close());
  for (const source of eventSources) {
    test(`${source} is counted, and the next ones are served`, async (t) => {
      if (!needs(t, "netns", "veth", "bridge")) return;
      const escaped: EscapedError[] = [];
      // First, also after a failure: an error without a listener ends this process, and with it the report.
      t.after(() => {
        guardProbe.before = undefined;
      });
      t.after(onEscapedError((error) => escaped.push(error)));
      await shared.run((scene) => survives(scene, source));
      assert.deepEqual([...new Set(escaped.map(({ error }) => error.message))], [`injected ${source}`]);
    });
  }
});

async function survives(scene: Scene, source: EventSource): Promise<void> {
  for (const times of [1, 5]) {
    const before = await counted(source);
    const thrown = inject(source, times);
    let limitMs = SHORTEST_LIMIT_MS;
    const call = async () => {
      const earlier = thrown();
      await traffic[source](scene, limitMs).catch(() => {}); // its connection is what the error costs
      limitMs = thrown() > earlier ? SHORTEST_LIMIT_MS : 2 * limitMs;
      return thrown();
    };
    try {
      await eventually(call, (seen) => seen === times);
    } finally {
      guardProbe.before = undefined;
    }
    assert.equal(await counted(source), before + times);
    await served(scene);
  }
}

async function counted(source: EventSource): Promise<number> {
  const readings = await metrics.read();
  const { samples = [] } = readings.find(({ name }) => name === "nsm_sriov_callback_errors_total") ?? {};
  return samples.find(({ labels }) => labels["source"] === source)?.value ?? 0;
}

/** The connections that were lost are made again within a few calls; kubelet too hears of the devices again. */
async function served(scene: Scene): Promise<void> {
  await eventually(
    () => serve(scene),
    (problem) => problem === undefined,
  );
}

async function serve(scene: Scene): Promise<string | undefined> {
  try {
    const pod = await scene.pod();
    try {
      await scene.serves(pod);
      return undefined;
    } finally {
      await pod.client.close({ timeoutMs: LIMIT_MS }).catch(() => {});
    }
  } catch (error) {
    return String(error);
  } finally {
    await scene.endPods();
  }
}

/** Over a connection of its own, and over those that are there. */
async function request(scene: Scene, timeoutMs: number): Promise<void> {
  const pod = await scene.pod();
  const direct = scene.direct(pod);
  try {
    await direct.request({ timeoutMs });
  } finally {
    await direct.close({ timeoutMs }).catch(() => {});
    await scene.endPods();
  }
}

/** Its deadline passes at the forwarder. */
async function impatient(scene: Scene): Promise<void> {
  const { knobs } = scene.sandbox.endpoint;
  const pod = await scene.pod();
  knobs.delayMs = 200;
  try {
    await scene.direct(pod).request({ timeoutMs: 50 });
  } finally {
    knobs.delayMs = 0;
    await scene.endPods();
  }
}

async function status({ forwarder }: Scene, limitMs: number): Promise<void> {
  const options = { headers: { connection: "close" }, signal: AbortSignal.timeout(limitMs) };
  await (await fetch(new URL("/healthz", forwarder.adminUrl), options)).text();
}

/** In kubelet's folder, which the forwarder watches. */
async function touch({ sandbox }: Scene): Promise<void> {
  const file = join(sandbox.forwarderSettings.devicePluginPath, "touched");
  writeFileSync(file, "");
  rmSync(file);
}

/** A network device that comes back is an event to the host's namespace. */
async function uevents(scene: Scene, limitMs: number): Promise<void> {
  const source = openUevents(silentLog, scene.sandbox.machine.netns);
  source.subscribe(() => {});
  try {
    await request(scene, limitMs);
  } finally {
    source.close();
  }
}

async function write(): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), "write-"));
  const file = join(folder, "file");
  writeFileSync(file, "");
  const writes = new BlockingWrites(clock);
  try {
    for (let i = 0; i < 6; i += 1) await writes.write(file, "text", { limitMs: 200 });
  } finally {
    rmSync(folder, { recursive: true });
  }
}

async function callByTcp(_scene: Scene, timeoutMs: number): Promise<void> {
  const handlers = [unaryHandler(NetworkService.method.request, async () => ({ id: "fine" }))];
  const server = await serveRpc({ url: "tcp://127.0.0.1:0", handlers, log: silentLog, clock });
  const client = new RpcClient({ log: silentLog, clock, dialTimeoutMs: 60_000, idleMs: 1000 });
  try {
    await client.call(server.url, NetworkService.method.request, {}, { timeoutMs });
  } finally {
    await client.close();
    await server.stop(0);
  }
}
