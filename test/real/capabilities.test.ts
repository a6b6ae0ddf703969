// The capabilities of the manifest: with exactly those the work is done, with one less it is not. Seccomp and AppArmor are not
// played: the manifest turns both off.
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { promisify } from "node:util";
import { parse } from "yaml";
import { KillableForwarder } from "../../sandbox/process/killable.ts";
import { SANDBOX_RESOURCE, Sandbox } from "../../sandbox/sandbox.ts";
import { systemClock as clock } from "../../src/async/index.ts";
import { silentLog } from "../../src/telemetry/index.ts";
import { bundleProgram } from "../../tools/bundle-program.ts";
import { needs } from "../needs.ts";
import { AccessScene, needsVersion, podPath, versions } from "../scenes/access-scene.ts";

const ROOT = join(import.meta.dirname, "..", "..");
const daemon = parse(readFileSync(join(ROOT, "deploy/kustomize/base/daemonset.yaml"), "utf8"), { merge: true });
const context = daemon.spec.template.spec.containers[0].securityContext;
const listed = context.capabilities.add as readonly string[];

/** As a runtime starts the container's root: these capabilities and no way to get others. */
function startedWith(capabilities: readonly string[]): readonly string[] {
  const set = ["-all", ...capabilities.map((name) => `+${name.toLowerCase()}`)].join();
  return ["setpriv", "--no-new-privs", "--inh-caps=-all", `--bounding-set=${set}`];
}

const without = (name: string) => listed.filter((one) => one !== name);

/** What a forwarder says that lacks one. */
const refusals: Readonly<Record<string, RegExp>> = {
  SYS_ADMIN: /Cannot enter a network namespace: operation not permitted \(EPERM\)/,
  NET_ADMIN: /Cannot set address of link \d+: operation not permitted \(EPERM\)/,
};

/** Starts the forwarder with these, and has one client make a Request and a Close: "served", or what went wrong. */
async function servesOne(t: TestContext, program: string, capabilities: readonly string[]): Promise<string> {
  const sandbox = await Sandbox.start({
    machine: { realLinks: true, pfs: 1, vfsPerPf: 1 },
    settings: { adminListenOn: undefined },
    log: silentLog,
    clock,
  });
  const logFile = `${sandbox.folder}/forwarder.log`;
  const forwarder = new KillableForwarder(sandbox, { program, logFile, starter: startedWith(capabilities) });
  t.after(async () => {
    await forwarder.kill(); // first: it writes into the sandbox's folder
    await sandbox.stop();
  });
  try {
    await forwarder.started;
  } catch {
    return readFileSync(logFile, "utf8");
  }
  await sandbox.kubelet.until(SANDBOX_RESOURCE, (devices) => devices.length === 1);
  const pod = await sandbox.startPod("client-1");
  const client = sandbox.directClientOf(pod, `unix://${sandbox.folder}/state/forwarder.sock`);
  t.after(() => client.hangUp());
  try {
    await client.request();
    assert.equal((await pod.pod.link("nsm-1"))?.up, true);
    await client.close();
    assert.deepEqual(await pod.pod.links(), []);
    return "served";
  } catch (error) {
    return String(error);
  }
}

test("a KERNEL Request and its Close are served with the manifest's capabilities, and not with one less", async (t) => {
  if (!needs(t, "root", "netns", "veth", "bridge")) return;
  const program = await bundleProgram(ROOT, "sandbox/process/forwarder-process.ts");
  assert.equal(await servesOne(t, program, listed), "served");
  for (const name of listed) {
    assert.match(await servesOne(t, program, without(name)), refusals[name] ?? /this test does not know it/, name);
  }
});

for (const version of versions) {
  test(`access to a device is granted and revoked with the manifest's capabilities, cgroups of version ${version}`, async (t) => {
    if (!needsVersion(t, version)) return;
    const scene = new AccessScene(t, version);
    const program = await bundleProgram(ROOT, "test/scenes/access-crasher.ts");
    const granted = async (uid: string, capabilities: readonly string[]) => {
      scene.close(`${podPath(uid)}/one`);
      const [command = "", ...words] = startedWith(capabilities);
      const args = [...words, process.execPath, program, scene.place.path, uid, "/dev/null", "0"];
      return await promisify(execFile)(command, args).then(
        () => "granted",
        ({ stderr }: { readonly stderr: string }) => stderr,
      );
    };
    assert.equal(await granted("whole", listed), "granted");
    assert.equal(await granted("without-net", without("NET_ADMIN")), "granted");
    assert.match(await granted("without-sys", without("SYS_ADMIN")), /\(EPERM\)/);
  });
}
