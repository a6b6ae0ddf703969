// The image's root under NSM's own manifest, as kubelet would run it: its environment, its folders, its memory. In a network namespace of its
// own, for no forwarder may start in the machine's.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdirSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { after, describe, type TestContext, test } from "node:test";
import { NSM_MANIFEST, PATCHED_MEMORY_BYTES } from "../fixtures/nsm-manifest.ts";
import { MemoryCgroup } from "../hostile/memory-cgroup.ts";
import { has, type Need, needs } from "../needs.ts";
import { makeImageRoot } from "../scenes/image-root.ts";
import { until } from "../scenes/until.ts";

const NEEDS: readonly Need[] = ["root", "netns", "memory-cgroup"];
const PROJECT = join(import.meta.dirname, "..", "..");

type Line = Readonly<Record<string, unknown>>;

/** Its log, line by line. The container ends with the test. */
function runImage(t: TestContext, root: string, memoryBytes: number): AsyncIterator<string> {
  const cgroup = MemoryCgroup.create(memoryBytes);
  const inside = [
    `mount --rbind /sys ${root}/sys && mount -t proc proc ${root}/proc && mount --rbind /dev ${root}/dev`,
    "ip link set lo up",
    `exec chroot ${root} /bin/forwarder`,
  ].join(" && ");
  const unshared = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "sh", "-ec", inside];
  const [command = "", ...words] = [...cgroup.starter, ...unshared];
  const env = { ...NSM_MANIFEST.env, PATH: "/bin:/usr/bin:/sbin:/usr/sbin" };
  const child = spawn(command, words, { env, stdio: ["ignore", "ignore", "pipe"] });
  const ended = new Promise((resolve) => child.once("close", resolve));
  t.after(async () => {
    child.kill("SIGKILL");
    child.stderr.resume();
    await ended;
    await until("the container's processes have ended", () => isClosed(cgroup)); // its PID namespace ends after unshare
  });
  return createInterface({ input: child.stderr })[Symbol.asyncIterator]();
}

/** Not as long as the kernel has a process of it. */
function isClosed(cgroup: MemoryCgroup): boolean {
  try {
    cgroup.close();
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "EBUSY") throw error;
    return false;
  }
}

async function next(lines: AsyncIterator<string>): Promise<Line> {
  const { value, done } = await lines.next();
  assert.ok(!done, "the forwarder has ended");
  return JSON.parse(value) as Line;
}

describe("the image under NSM's manifest", () => {
  const image = NEEDS.every(has) ? makeImageRoot(PROJECT) : undefined;
  after(() => image?.remove());

  function inRoot(): string {
    const { root } = image ?? assert.fail();
    for (const folder of [...NSM_MANIFEST.mounts, "/sys", "/proc", "/dev"])
      mkdirSync(root + folder, { recursive: true });
    mkdirSync(`${root}/etc`, { recursive: true });
    writeFileSync(`${root}/etc/hosts`, "127.0.0.1 localhost\n"); // as kubelet makes it
    writeFileSync(root + NSM_MANIFEST.env.NSM_SRIOV_CONFIG_FILE, "physicalFunctions: {}\n");
    return root;
  }

  test("says in its first line that the memory is too little, and what to set", async (t) => {
    if (!needs(t, ...NEEDS)) return;
    const { level, event, error } = await next(runImage(t, inRoot(), NSM_MANIFEST.memoryBytes));
    assert.deepEqual([level, event], ["error", "memory-too-little"]);
    assert.match(String(error), /resources\.limits\.memory should be 256Mi/);
  });

  test("works with the memory of docs/migrate.md, as far as the agent that it awaits, and has its state on the host", async (t) => {
    if (!needs(t, ...NEEDS)) return;
    const root = inRoot();
    const lines = runImage(t, root, PATCHED_MEMORY_BYTES);
    const seen: Line[] = [];
    while (seen.at(-1)?.["event"] !== "svid-awaited") seen.push(await next(lines));
    const wrong = seen.filter(({ level }) => level === "error");
    assert.deepEqual(wrong, []);
    assert.equal(seen.at(-1)?.["from"], NSM_MANIFEST.env.SPIFFE_ENDPOINT_SOCKET);
    const kept = readdirSync(`${root}/var/lib/networkservicemesh`, { recursive: true }).map(String);
    assert.ok(
      kept.some((path) => path.endsWith("/token-namespace")),
      kept.join(),
    );
  });
});
