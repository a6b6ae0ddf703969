// A process that may have little of the machine: it serves with that, or ends and says what it lacks. It never turns in a circle.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdirSync, readFileSync, rmdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { before, describe, type TestContext, test } from "node:test";
import { KillableForwarder } from "../../sandbox/process/killable.ts";
import { SANDBOX_RESOURCE, Sandbox } from "../../sandbox/sandbox.ts";
import { systemClock as clock } from "../../src/async/index.ts";
import { silentLog } from "../../src/telemetry/index.ts";
import { bundleProgram } from "../../tools/bundle-program.ts";
import { MemoryCgroup, MIB } from "../hostile/memory-cgroup.ts";
import { mountPoints, type Need, needs } from "../needs.ts";
import { eventually } from "./scenes/story.ts";

const ROOT = join(import.meta.dirname, "..", "..");
const VFS = 2;
const LINKS: readonly Need[] = ["netns", "veth", "bridge"];

let program: string;
before(async () => {
  program = await bundleProgram(ROOT, "sandbox/process/forwarder-process.ts");
});

interface Limited {
  readonly sandbox: Sandbox;
  readonly forwarder: KillableForwarder;
  readonly log: () => string;
}

/** What starts the process with that limit. */
async function open(
  t: TestContext,
  starter: readonly string[],
  { realLinks, closed }: { readonly realLinks: boolean; readonly closed?: () => void },
): Promise<Limited> {
  const sandbox = await Sandbox.start({ machine: { realLinks, pfs: 1, vfsPerPf: VFS }, log: silentLog, clock });
  const logFile = `${sandbox.folder}/forwarder.log`;
  const forwarder = new KillableForwarder(sandbox, { program, logFile, starter });
  forwarder.started.catch(() => {}); // its waiter gets it
  t.after(async () => {
    await forwarder.kill();
    await sandbox.stop();
    closed?.();
  });
  return { sandbox, forwarder, log: () => readFileSync(logFile, "utf8") };
}

const shell = (before: string) => ["sh", "-ec", `${before}; exec "$@"`, "sh"];

async function offersAll({ sandbox }: Limited): Promise<void> {
  await sandbox.kubelet.until(SANDBOX_RESOURCE, (all) => all.filter(({ healthy }) => healthy).length === VFS);
}

/** A new pod is served from its Request to its Close. */
async function serves(limited: Limited): Promise<void> {
  await limited.forwarder.started;
  await offersAll(limited);
  const { sandbox } = limited;
  const pod = await sandbox.startPod("client-1");
  const client = sandbox.directClientOf(pod, `unix://${sandbox.folder}/state/forwarder.sock`);
  await client.request();
  assert.equal((await pod.pod.link("nsm-1"))?.up, true);
  await client.close();
  await client.hangUp();
}

/** Processor time that it has had, in ms: fields 14 and 15 of proc_pid_stat(5), in ticks of 10 ms. */
function cpuMs({ forwarder: { pid } }: Limited): number {
  const fields = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1]?.split(" ") ?? [];
  return (Number(fields[11]) + Number(fields[12])) * 10;
}

describe("of open files", () => {
  test("64 are enough for one client", async (t) => {
    if (!needs(t, ...LINKS)) return;
    await serves(await open(t, shell("ulimit -n 64"), { realLinks: true }));
  });

  test("where no more can be opened it stays, tries again without haste, and is served when there are some", async (t) => {
    const limited = await open(t, [], { realLinks: false });
    const { sandbox, forwarder, log } = limited;
    await forwarder.started;
    await offersAll(limited);
    await sandbox.kubelet.stop();
    const limitFiles = (count: number) => execFileSync("prlimit", [`--pid=${forwarder.pid}`, `--nofile=${count}:`]);
    limitFiles(3); // What it has open it keeps.
    await sandbox.kubelet.start();
    await eventually(log, (text) => /EMFILE/.test(text));
    const before = cpuMs(limited);
    await clock.sleep(2000);
    assert.ok(cpuMs(limited) - before < 600, `${cpuMs(limited) - before} ms of 2 s`);
    assert.equal(forwarder.end, undefined);
    limitFiles(1024);
    await offersAll(limited);
  });

  test("32 are not enough to start, which it says with what to do", async (t) => {
    const { forwarder, log } = await open(t, shell("ulimit -n 32"), { realLinks: false });
    assert.equal(await forwarder.ended, 1);
    assert.match(log(), /"start-failed".*EMFILE\); raise this process's limit of open files/);
  });
});

for (const what of ["instances", "watches"]) {
  test(`without inotify ${what} kubelet's restart is noticed all the same`, async (t) => {
    if (!needs(t, "userns")) return;
    const none = `echo 0 > /proc/sys/user/max_inotify_${what}`;
    const limited = await open(t, ["unshare", "-Ur", ...shell(none)], { realLinks: false });
    await limited.forwarder.started;
    await offersAll(limited);
    const { kubelet } = limited.sandbox;
    await kubelet.stop();
    await kubelet.start();
    await eventually(
      () => kubelet.devices.value?.get(SANDBOX_RESOURCE)?.length,
      (count) => count === VFS,
    );
  });
}

describe("of processes and threads", () => {
  const limitedTo = async (t: TestContext, count: number) => {
    const [root = assert.fail("no pids cgroup")] = mountPoints("cgroup", "pids");
    const folder = join(root, `forwarder-${process.pid}-${count}`);
    mkdirSync(folder);
    writeFileSync(join(folder, "pids.max"), String(count));
    const closed = () => rmdirSync(folder);
    return await open(t, shell(`echo $$ > ${folder}/cgroup.procs`), { realLinks: true, closed });
  };

  test("16 are enough", async (t) => {
    if (!needs(t, "pids-cgroup", ...LINKS)) return;
    await serves(await limitedTo(t, 16));
  });

  test("with 8 Node itself ends, at once", async (t) => {
    if (!needs(t, "pids-cgroup", ...LINKS)) return;
    const { forwarder } = await limitedTo(t, 8);
    await forwarder.ended;
    assert.equal(forwarder.end, "SIGABRT");
  });
});

describe("of memory", () => {
  const limitedTo = async (t: TestContext, mebibytes: number) => {
    const cgroup = MemoryCgroup.create(mebibytes * MIB);
    return { cgroup, limited: await open(t, cgroup.starter, { realLinks: true, closed: () => cgroup.close() }) };
  };

  test("64 MiB are enough for one client", async (t) => {
    if (!needs(t, "memory-cgroup", ...LINKS)) return;
    const { cgroup, limited } = await limitedTo(t, 64);
    await serves(limited);
    assert.equal(cgroup.oomKills, 0);
  });

  test("with 16 MiB the kernel ends it, soon and once", async (t) => {
    if (!needs(t, "memory-cgroup", ...LINKS)) return;
    const { cgroup, limited } = await limitedTo(t, 16);
    assert.equal(await limited.forwarder.ended, null);
    assert.deepEqual([limited.forwarder.end, cgroup.oomKills], ["SIGKILL", 1]);
  });
});
