// The forwarder as a process of its own that nothing outside keeps alive: it starts with what there is, stays as long as it
// waits, and never ends without a last line and a documented code.
import assert from "node:assert/strict";
import { readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { before, describe, type TestContext, test } from "node:test";
import type { Client } from "../../sandbox/nsm/client.ts";
import { KillableForwarder } from "../../sandbox/process/killable.ts";
import type { PhaseTrial } from "../../sandbox/process/process-messages.ts";
import { SANDBOX_RESOURCE, Sandbox, type SandboxOptions, type SandboxPod } from "../../sandbox/sandbox.ts";
import { systemClock as clock } from "../../src/async/index.ts";
import { phaseTitles } from "../../src/composition/phase-report.ts";
import { silentLog } from "../../src/telemetry/index.ts";
import { bundleProgram } from "../../tools/bundle-program.ts";
import { needs } from "../needs.ts";
import { eventually } from "./scenes/story.ts";

const ROOT = join(import.meta.dirname, "..", "..");
const [FIRST_PF, SECOND_PF] = ["0000:01:00.0", "0000:02:00.0"];
/** Beyond the last phase: nothing goes wrong, and time is short. */
const NO_TRIAL: PhaseTrial = { phase: 99, how: "exit" };

interface Wait {
  readonly title: (typeof phaseTitles)[number];
  /** What conditions say meanwhile. */
  readonly says: RegExp;
  readonly how?: PhaseTrial["how"];
  /** Takes away what the phase waits for. */
  readonly take?: (node: Node) => Promise<void>;
}

interface LogLine {
  readonly event?: string;
  readonly [field: string]: unknown;
}

let program: string;
before(async () => {
  program = await bundleProgram(ROOT, "sandbox/process/forwarder-process.ts");
});

class Node {
  readonly sandbox: Sandbox;
  readonly logFile: string;
  forwarder: KillableForwarder | undefined;

  private constructor(sandbox: Sandbox) {
    this.sandbox = sandbox;
    this.logFile = `${sandbox.folder}/forwarder.log`;
  }

  static async open(t: TestContext, options: Partial<SandboxOptions> = {}): Promise<Node> {
    const machine = { vfsPerPf: 2, realLinks: true, ...options.machine };
    const sandbox = await Sandbox.start({ log: silentLog, clock, ...options, machine });
    const node = new Node(sandbox);
    t.after(async () => {
      await node.forwarder?.kill();
      await sandbox.stop();
    });
    return node;
  }

  start(trial?: PhaseTrial): KillableForwarder {
    const { logFile } = this;
    this.forwarder = new KillableForwarder(this.sandbox, { program, logFile, ...(trial && { trial }) });
    this.forwarder.started.catch(() => {}); // its waiter gets it
    return this.forwarder;
  }

  events(): readonly LogLine[] {
    const lines = readFileSync(this.logFile, "utf8").split("\n");
    return lines.filter((line) => line.startsWith("{")).map((line) => JSON.parse(line));
  }

  async until(isIt: (line: LogLine) => boolean) {
    const events = await eventually(
      () => this.events(),
      (all) => all.some(isIt),
    );
    return events.findLast(isIt);
  }

  /** Has so many healthy devices at kubelet. */
  async offers(count: number): Promise<void> {
    const healthy = () =>
      (this.sandbox.kubelet.devices.value?.get(SANDBOX_RESOURCE) ?? []).filter((one) => one.healthy);
    await eventually(
      () => healthy().length,
      (now) => now === count,
    );
  }

  clientOf(pod: SandboxPod): Client {
    return this.sandbox.directClientOf(pod, `unix://${this.sandbox.folder}/state/forwarder.sock`);
  }

  /** A new pod is served from its Request to its Close. */
  async serves(name: string): Promise<void> {
    const pod = await this.sandbox.startPod(name);
    const client = this.clientOf(pod);
    await client.request();
    assert.equal((await pod.pod.link("nsm-1"))?.up, true);
    await client.close();
    await client.hangUp();
  }
}

describe("a forwarder that nothing holds starts and serves what it can", () => {
  test("while its journal is lost and a virtual function is with a client", async (t) => {
    if (!needs(t, "netns", "veth", "bridge")) return;
    const node = await Node.open(t);
    await node.start().started;
    await node.offers(4);
    const pod = await node.sandbox.startPod("left-behind");
    const client = node.clientOf(pod);
    await client.request();
    await client.hangUp();
    await node.forwarder?.kill();
    rmSync(`${node.sandbox.folder}/state`, { recursive: true });

    const again = node.start();
    await again.started;
    await node.offers(3);
    await node.serves("another");
    assert.ok(await pod.pod.link("nsm-1"), "what the client has is not touched");
    const withheld = async () => (await again.inventory()).vfs.filter(({ state }) => state === "quarantined");
    const [vf, ...others] = await withheld();
    assert.match(vf?.problem ?? "", /^Its network device is not in the host: .* the journal does not know of$/);
    assert.deepEqual(others, []);

    node.sandbox.kubelet.free("left-behind");
    pod.pod.close();
    await eventually(withheld, (now) => now.length === 0);
    await node.offers(4);
  });

  test("while the network device of a virtual function is not there yet", async (t) => {
    if (!needs(t, "netns", "veth", "bridge")) return;
    const slow = Promise.withResolvers<void>();
    let waits: Promise<void> | undefined;
    const node = await Node.open(t, { machine: { netdevsWait: () => waits } });
    const { devices, drivers } = node.sandbox.machine;
    const netdevs = () => devices.list("0000:01:10.0/net").catch(() => []);
    await eventually(netdevs, (names) => names.length === 1);
    waits = slow.promise;
    await drivers.writeText("igbvf/unbind", "0000:01:10.0");
    await drivers.writeText("igbvf/bind", "0000:01:10.0");
    await node.start().started;
    await node.offers(3);
    assert.deepEqual(await netdevs(), []);
    slow.resolve();
    await node.offers(4);
    assert.equal((await netdevs()).length, 1);
  });

  test("while all network devices, those of the physical functions too, are not there yet", async (t) => {
    if (!needs(t, "netns", "veth", "bridge")) return;
    const slow = Promise.withResolvers<void>();
    const node = await Node.open(t, { machine: { netdevsWait: () => slow.promise } });
    await node.start().started;
    assert.equal(await node.sandbox.machine.devices.exists(`${FIRST_PF}/net`), false);
    slow.resolve();
    await node.offers(4);
    await node.serves("first");
  });

  test("while the driver of one adapter does not finish making its virtual functions", async (t) => {
    if (!needs(t, "netns", "veth", "bridge")) return;
    const node = await Node.open(t, { machine: { numVfs: 0 } });
    const finish = node.sandbox.machine.faults.stallWrite({ tree: "devices", path: `${SECOND_PF}/sriov_numvfs` });
    await node.start().started;
    await node.offers(2);
    await node.serves("first");
    finish();
    await node.offers(4);
  });

  test("while the manager is away: kubelet has its devices", async (t) => {
    const node = await Node.open(t, { machine: { realLinks: false } });
    await node.sandbox.nsmgr.close();
    const forwarder = node.start();
    await node.offers(4);
    await node.sandbox.nsmgr.start();
    await forwarder.started;
  });

  test("while the SPIRE agent is away", async (t) => {
    const node = await Node.open(t, { machine: { realLinks: false } });
    await node.sandbox.workload.stop();
    const forwarder = node.start();
    await node.until(({ event }) => event === "svid-awaited");
    await node.sandbox.workload.start();
    await forwarder.started;
    await node.offers(4);
  });

  test("while kubelet is away", async (t) => {
    const node = await Node.open(t, { machine: { realLinks: false } });
    await node.sandbox.kubelet.stop();
    await node.start().started;
    await node.sandbox.kubelet.start();
    await node.offers(4);
  });
});

describe("a forwarder that waits for what never comes stays, and says what it waits for", () => {
  const waits: readonly Wait[] = [
    { title: "look at the node", says: /not-serving: Starting: look at the node/, how: "node-silent" },
    { title: "read the journal", says: /not-serving: Starting: read the journal/, how: "node-silent" },
    { title: phaseTitles[4], says: /svid-missing: /, take: (node) => node.sandbox.workload.stop() },
    {
      title: "register with the manager",
      says: /not-registered: .*manager/,
      take: (node) => node.sandbox.nsmgr.close(),
    },
  ];
  for (const { title, says, how, take } of waits) {
    const phase = phaseTitles.indexOf(title) + 1;
    const trial = how ? { phase, how } : NO_TRIAL;
    test(`in phase ${phase}: ${title}`, async (t) => {
      const node = await Node.open(t, { machine: { realLinks: false } });
      await take?.(node);
      const forwarder = node.start(trial);
      const isReminder = (event: LogLine) => event["event"] === "phase-slow" && event["phase"] === title;
      await eventually(
        () => node.events(),
        (events) => events.filter(isReminder).length >= 2,
      );
      const reported = await node.until(isReminder);
      assert.match(String(reported?.["conditions"]), says);
      const page = await node.until(({ event }) => event === "status-page");
      const ready = await fetch(`${page?.["url"]}/readyz`, { headers: { connection: "close" } });
      assert.equal(ready.status, 503);
      assert.match(await ready.text(), says);
      forwarder.signal("SIGTERM");
      const code = await forwarder.ended;
      // A try that was under way may still be logged.
      const last = node.events().findLast(({ event }) => event?.startsWith("stop"));
      // A read that never returns hears of no stop.
      const expected = trial === NO_TRIAL ? [0, "stopping"] : [1, "stop-failed"];
      assert.deepEqual([code, last?.event], expected, JSON.stringify(last));
    });
  }
});

describe("a forwarder that ends all the same says so, and has the code of a fault", () => {
  for (const [at, title] of phaseTitles.entries()) {
    test(`where a part ends the process in phase ${at + 1}: ${title}`, async (t) => {
      const node = await Node.open(t, { machine: { realLinks: false } });
      const code = await node.start({ phase: at + 1, how: "exit" }).ended;
      const { event, stage, byCode }: LogLine = node.events().at(-1) ?? {};
      assert.deepEqual(
        { code, event, stage, byCode },
        { code: 70, event: "ended-unexpectedly", stage: "starting", byCode: 3 },
      );
    });
  }

  for (const title of ["look at the node", "read the journal"] as const) {
    const phase = phaseTitles.indexOf(title) + 1;
    test(`where nothing holds the event loop in phase ${phase}: ${title}`, async (t) => {
      const node = await Node.open(t, { machine: { realLinks: false } });
      const code = await node.start({ phase, how: "loop-empty" }).ended;
      const { event, stage }: LogLine = node.events().at(-1) ?? {};
      assert.deepEqual({ code, event, stage }, { code: 70, event: "event-loop-empty", stage: "starting" });
    });
  }
});
