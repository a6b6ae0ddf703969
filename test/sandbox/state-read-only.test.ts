// The state folder is a mount of its own that becomes read-only while the forwarder runs, as a disk does that fails, and is writable again.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { KillableForwarder } from "../../sandbox/process/killable.ts";
import { SANDBOX_RESOURCE, Sandbox, type SandboxPod } from "../../sandbox/sandbox.ts";
import { systemClock as clock } from "../../src/async/index.ts";
import { silentLog } from "../../src/telemetry/index.ts";
import { bundleProgram } from "../../tools/bundle-program.ts";
import { needs } from "../needs.ts";
import { eventually, refusal } from "./scenes/story.ts";

const ROOT = join(import.meta.dirname, "..", "..");

/** In the mount namespace of the forwarder alone. */
function mount(forwarder: KillableForwarder, ...words: readonly string[]): void {
  execFileSync("nsenter", ["-t", String(forwarder.pid), "-m", "mount", ...words], {
    stdio: ["ignore", "ignore", "pipe"],
  });
}

async function started(t: TestContext) {
  const program = await bundleProgram(ROOT, "sandbox/process/forwarder-process.ts");
  const sandbox = await Sandbox.start({ machine: { realLinks: true, pfs: 1, vfsPerPf: 3 }, log: silentLog, clock });
  const state = `${sandbox.folder}/state`;
  const logFile = `${sandbox.folder}/forwarder.log`;
  const inOwnMounts = `mount -t tmpfs none ${state}; exec "$@"`;
  const starter = ["unshare", "-m", "sh", "-ec", inOwnMounts, "sh"];
  const forwarder = new KillableForwarder(sandbox, { program, logFile, starter });
  t.after(async () => {
    await forwarder.kill(); // first: it writes into the sandbox's folder
    await sandbox.stop();
  });
  await forwarder.started;
  await sandbox.kubelet.until(SANDBOX_RESOURCE, (devices) => devices.filter(({ healthy }) => healthy).length === 3);
  const log = () => readFileSync(logFile, "utf8");
  const [, adminUrl = ""] = /"url":"(http:[^"]+)"/.exec(log()) ?? [];
  const ready = async () => (await fetch(`${adminUrl}/readyz`, { headers: { connection: "close" } })).text();
  const clientOf = (pod: SandboxPod) => {
    const client = sandbox.directClientOf(
      pod,
      `unix://${join("/proc", String(forwarder.pid), "root", state, "forwarder.sock")}`,
    );
    t.after(() => client.hangUp());
    return client;
  };
  return { sandbox, forwarder, state, log, ready, clientOf };
}

test("a state folder that is read-only for a while refuses what is new, keeps what is established, and is mended by itself", async (t) => {
  if (!needs(t, "root", "netns", "veth", "bridge")) return;
  const { sandbox, forwarder, state, log, ready, clientOf } = await started(t);
  const [kept, closed, fresh] = await Promise.all(["kept", "closed", "fresh"].map((name) => sandbox.startPod(name)));
  assert.ok(kept && closed && fresh);
  const [ofKept, ofClosed, ofFresh] = [kept, closed, fresh].map(clientOf);
  assert.ok(ofKept && ofClosed && ofFresh);
  await ofKept.request();
  await ofClosed.request();
  // A mount with a file that is open for writing is busy: the journal is opened again after it was written again.
  execFileSync("nsenter", ["-t", String(forwarder.pid), "-m", "rm", `${state}/journal`]);
  await eventually(log, (text) => /journal-not-written/.test(text));
  await eventually(
    () => {
      try {
        mount(forwarder, "-o", "remount,ro", state);
        return true;
      } catch (error) {
        return String(error);
      }
    },
    (done) => done === true,
  );
  await assert.rejects(ofFresh.request(), refusal("UNAVAILABLE", /read-only file system/));
  assert.match(await ready(), /journal-not-written: New connections are refused: .* read-only file system/);
  await ofKept.request();
  assert.equal((await kept.pod.link("nsm-1"))?.up, true);
  await ofClosed.close();
  assert.deepEqual(await closed.pod.links(), []);
  assert.match(log(), /"event":"vf-not-forgotten"/);
  mount(forwarder, "-o", "remount,rw", state);
  await eventually(ready, (text) => !/journal-not-written/.test(text));
  await ofFresh.request();
  await ofClosed.request();
  for (const client of [ofKept, ofClosed, ofFresh]) await client.close();
});
