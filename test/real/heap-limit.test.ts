// The program in a memory cgroup, as kubelet makes one for a container with resources.limits.memory.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { runtimeFlags } from "../../tools/bundle-options.ts";
import { MemoryCgroup, MIB } from "../hostile/memory-cgroup.ts";
import { needs } from "../needs.ts";

const MAIN = join(import.meta.dirname, "..", "..", "src", "main.ts");

/** The words of the process that logs "starting". */
async function commandLine(
  t: TestContext,
  memoryMib: number,
): Promise<{ readonly pid: boolean; readonly words: readonly string[] }> {
  const folder = mkdtempSync(join(tmpdir(), "heap-"));
  writeFileSync(join(folder, "pci.config"), "physicalFunctions: {}\n");
  const cgroup = MemoryCgroup.create(memoryMib * MIB);
  const [command = "", ...words] = [...cgroup.starter, process.execPath, ...runtimeFlags, MAIN];
  const env = {
    SPIFFE_ENDPOINT_SOCKET: "unix:///nowhere/agent.sock",
    NSM_STATE_PATH: join(folder, "state"),
    NSM_ADMIN_LISTEN_ON: "localhost:0",
  };
  const child = spawn(command, words, { cwd: folder, env, stdio: ["ignore", "ignore", "pipe"] });
  const ended = once(child, "exit");
  t.after(async () => {
    child.kill("SIGKILL");
    await ended;
    cgroup.close();
    rmSync(folder, { recursive: true });
  });
  let said = "";
  for await (const piece of child.stderr) {
    said += String(piece);
    if (said.includes('"starting"')) break;
  }
  const [, pid] = /"pid":(\d+)/.exec(said) ?? assert.fail(said);
  const cmdline = readFileSync(`/proc/${child.pid}/cmdline`, "utf8");
  return { pid: Number(pid) === child.pid, words: cmdline.split("\0") };
}

test("fitHeap() starts the program again in the same process where its cgroup has less than the heap may take", async (t) => {
  if (!needs(t, "root", "memory-cgroup")) return;
  const { pid, words } = await commandLine(t, 160);
  assert.equal(pid, true);
  assert.deepEqual(
    words.filter((word) => word.startsWith("--max-old-space-size")),
    ["--max-old-space-size=256", "--max-old-space-size=86"],
  );
});

test("fitHeap() leaves the heap as it is where the cgroup has enough", async (t) => {
  if (!needs(t, "root", "memory-cgroup")) return;
  const { words } = await commandLine(t, 1024);
  assert.deepEqual(
    words.filter((word) => word.startsWith("--max-old-space-size")),
    ["--max-old-space-size=256"],
  );
});
