import assert from "node:assert/strict";
import { readdirSync, readFileSync, statSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { KillableForwarder } from "../../sandbox/process/killable.ts";
import { SANDBOX_RESOURCE, Sandbox, type SandboxPod } from "../../sandbox/sandbox.ts";
import { systemClock as clock } from "../../src/async/index.ts";
import type { ForwarderSettings } from "../../src/forwarder.ts";
import { silentLog as log } from "../../src/telemetry/index.ts";
import { bundleProgram } from "../../tools/bundle-program.ts";
import { needs } from "../needs.ts";
import { eventually } from "./scenes/story.ts";

const ROOT = join(import.meta.dirname, "..", "..");

/** A forwarder's process, and what it has said. */
interface Started {
  readonly process: KillableForwarder;
  events(name: string): readonly Record<string, unknown>[];
  /** Its status page, when it is open. */
  page(): Promise<string>;
}

/** A node, and forwarders on it that each are a process of their own. */
class Node {
  readonly sandbox: Sandbox;
  readonly #program: string;
  readonly #started: KillableForwarder[] = [];

  private constructor(sandbox: Sandbox, program: string) {
    this.sandbox = sandbox;
    this.#program = program;
  }

  static async open(t: TestContext): Promise<Node> {
    const program = await bundleProgram(ROOT, "sandbox/process/forwarder-process.ts");
    const machine = { realLinks: true, pfs: 2, vfsPerPf: 2 };
    const sandbox = await Sandbox.start({ machine, settings: { reconcileIntervalMs: 200 }, log, clock });
    const node = new Node(sandbox, program);
    t.after(async () => {
      await Promise.all(node.#started.map((one) => one.kill()));
      await sandbox.stop();
    });
    return node;
  }

  start(name: string, changes: Partial<ForwarderSettings> = {}): Started {
    const { machine, pfConfigFile, forwarderSettings } = this.sandbox;
    const logFile = `${this.sandbox.folder}/${name}.log`;
    const node = { machine, pfConfigFile, forwarderSettings: { ...forwarderSettings, ...changes, name } };
    const process = new KillableForwarder(node, { program: this.#program, logFile });
    process.started.catch(() => {}); // one that is killed while it waits has not failed
    this.#started.push(process);
    const events = (event: string) =>
      readFileSync(logFile, "utf8")
        .split("\n")
        .filter((line) => line.startsWith("{"))
        .map((line) => JSON.parse(line) as Record<string, unknown>)
        .filter((line) => line["event"] === event);
    const page = async () => {
      const [opened] = await eventually(
        () => events("status-page"),
        (found) => found.length > 0,
      );
      return String(opened?.["url"]);
    };
    return { process, events, page };
  }

  async serve(): Promise<SandboxPod> {
    // Kubelet may still know the list of one that has been killed.
    const started = await eventually(
      () => this.sandbox.startPod(`pod-${clock.now()}`).catch((error: unknown) => String(error)),
      (pod) => typeof pod !== "string",
    );
    if (typeof started === "string") throw new Error(started);
    await started.client.request();
    return started;
  }

  /** Names, times and sizes: a program that writes there changes one of them. */
  state(): unknown {
    const folder = `${this.sandbox.folder}/state`;
    return readdirSync(folder).map((name) => {
      const { ino, size, mtimeNs } = statSync(join(folder, name), { bigint: true });
      return [name, ino, size, mtimeNs].join(" ");
    });
  }
}

const waits = async (one: Started, holder: RegExp) => {
  const [said] = await eventually(
    () => one.events("state-folder-held"),
    (found) => found.length > 0,
  );
  assert.match(String(said?.["holder"]), holder);
};

async function ready(page: string): Promise<{ status: number; text: string }> {
  const answer = await fetch(`${page}/readyz?verbose`, { headers: { connection: "close" } });
  return { status: answer.status, text: await answer.text() };
}

test("a second forwarder on a state folder touches nothing, says who has it, and takes over when that is killed; a third waits on", async (t) => {
  if (!needs(t, "netns", "veth", "bridge")) return;
  const node = await Node.open(t);
  const { kubelet, nsmgr } = node.sandbox;
  const first = node.start("forwarder-a");
  await first.process.started;
  const pod = await node.serve();
  const { registrations } = kubelet;
  const state = node.state();

  const second = node.start("forwarder-b");
  await waits(second, /^forwarder-a, process \d+ .*, version \d+\.\d+\.\d+, since 20\d\d-/);
  const third = node.start("forwarder-c");
  await waits(third, /^forwarder-a, /);
  const { status, text } = await ready(await second.page());
  assert.equal(status, 503);
  assert.match(text, /^state-folder-held: Another forwarder on this node has .*forwarder-a, process \d+/m);
  assert.match(text, /^not-serving: Starting: take the state folder/m);
  // The first continues: what follows would come after anything that the others do at their start.
  await pod.client.close();
  await pod.client.request();
  assert.deepEqual([second.process.touches, third.process.touches], [0, 0]);
  const known = ["a", "b", "c"].filter((name) => nsmgr.registry.endpoints.get(`forwarder-${name}`) !== undefined);
  assert.deepEqual(known, ["a"]);
  assert.equal(kubelet.registrations, registrations);
  const journal = (rows: unknown) => (rows as string[]).filter((row) => !row.startsWith("journal"));
  assert.deepEqual(journal(node.state()), journal(state));

  await first.process.kill();
  const next = await Promise.race([
    second.process.started.then(() => ({ owner: second, other: third, name: "forwarder-b" })),
    third.process.started.then(() => ({ owner: third, other: second, name: "forwarder-c" })),
  ]);
  assert.equal(next.owner.events("state-folder-claimed").length, 1);
  assert.equal((await ready(await next.owner.page())).status, 200);
  assert.equal((await pod.pod.link("nsm-1"))?.up, true);
  await node.serve();
  await eventually(
    () => next.other.events("state-folder-held").map(({ holder }) => String(holder)),
    (holders) => holders.some((holder) => holder.startsWith(`${next.name}, `)),
  );
  assert.equal(next.other.process.touches, 0);
  assert.equal((await ready(await next.other.page())).status, 503);

  await next.owner.process.kill();
  await next.other.process.started;
  await node.serve();
});

test("a second forwarder on the host's network opens its status page when the first has left the port", async (t) => {
  if (!needs(t, "netns", "veth", "bridge")) return;
  const node = await Node.open(t);
  const adminListenOn = { host: "127.0.0.1", port: await freePort() };
  const first = node.start("forwarder-a", { adminListenOn });
  await first.process.started;
  const second = node.start("forwarder-b", { adminListenOn });
  await waits(second, /^forwarder-a, /);
  assert.equal(second.events("status-page").length, 0);
  await first.process.kill();
  await second.process.started;
  assert.equal((await ready(await second.page())).status, 200);
});

function freePort(): Promise<number> {
  return new Promise((resolve) => {
    const server = createServer().listen(0, "127.0.0.1", () => {
      const address = server.address();
      server.close(() => resolve(typeof address === "object" && address ? address.port : 0));
    });
  });
}

test("a forwarder of another release leaves the physical functions of the first alone, says so, and takes them over when it ends", async (t) => {
  if (!needs(t, "netns", "veth", "bridge")) return;
  const node = await Node.open(t);
  const { kubelet } = node.sandbox;
  const first = node.start("forwarder-a");
  await first.process.started;
  const pod = await node.serve();
  const devices = kubelet.devices.value?.get(SANDBOX_RESOURCE);
  const { registrations } = kubelet;

  const other = node.start("forwarder-b", { statePath: `${node.sandbox.folder}/other` });
  await other.process.started;
  const { status, text } = await ready(await other.page());
  assert.equal(status, 200);
  assert.match(text, /^warning pf-held-elsewhere .*0000:01:00\.0: another forwarder on this node has it/m);
  assert.match(text, /^warning pf-held-elsewhere .*0000:02:00\.0/m);
  assert.equal(other.process.touches, 0);
  assert.deepEqual((await other.process.inventory()).vfs, []);
  assert.equal(kubelet.registrations, registrations);
  assert.deepEqual(kubelet.devices.value?.get(SANDBOX_RESOURCE), devices);
  assert.equal((await pod.pod.link("nsm-1"))?.up, true);

  await first.process.kill();
  const found = await eventually(
    () => other.process.inventory(),
    ({ vfs }) => vfs.length === 4,
  );
  assert.equal(found.vfs.filter(({ isHeld }) => isHeld).length, 0);
  // The pod keeps what it has: its VF is given to no client.
  const hidden = await eventually(
    () => other.process.inventory(),
    ({ vfs }) => vfs.some(({ problem }) => problem !== undefined),
  );
  assert.deepEqual(hidden.vfs.filter(({ state }) => state === "quarantined").length, 1);
  assert.equal((await pod.pod.link("nsm-1"))?.up, true);
});
