// With as little memory as NSM's manifest for the original gives, the first line says so.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { test } from "node:test";
import { bundleProgram } from "../../tools/bundle-program.ts";
import { MemoryCgroup, MIB } from "../hostile/memory-cgroup.ts";
import { needs } from "../needs.ts";

test("a forwarder with 40 MiB of memory says first that it needs more", async (t) => {
  if (!needs(t, "root", "memory-cgroup")) return;
  const folder = mkdtempSync(join(tmpdir(), "little-memory-"));
  t.after(() => rmSync(folder, { recursive: true }));
  const cgroup = MemoryCgroup.create(40 * MIB);
  t.after(() => cgroup.close());
  const program = await bundleProgram(join(import.meta.dirname, "..", ".."), "src/main.ts");
  const [command = "", ...args] = [...cgroup.starter, process.execPath, program];
  const env = {
    SPIFFE_ENDPOINT_SOCKET: "unix:///nowhere/agent.sock",
    NSM_STATE_PATH: folder,
    NSM_ADMIN_LISTEN_ON: "off",
  };
  const child = spawn(command, args, {
    cwd: folder,
    env: { ...process.env, ...env },
    stdio: ["ignore", "inherit", "pipe"],
  });
  const ended = new Promise((resolve) => child.once("close", resolve));
  try {
    const lines = createInterface({ input: child.stderr })[Symbol.asyncIterator]();
    const { value = "" } = await lines.next();
    const { event, error, level } = JSON.parse(value) as Record<string, unknown>;
    assert.deepEqual([level, event], ["error", "memory-too-little"]);
    assert.match(String(error), /has 40 MiB of memory, and the forwarder needs 96/);
  } finally {
    child.kill("SIGKILL");
    child.stderr.resume();
    await ended;
  }
});
