import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { inOwnNetns } from "../sandbox/own-netns.ts";
import { addCounts, type TestCounts } from "./test-counts.ts";

/**
 * The words before a command that give it network and mount namespaces of its own, as far as this user may: root does, others as
 * root of a user namespace of their own. None where the machine refuses, and a sentence to `print`.
 */
export function fence(print: (line: string) => void): readonly string[] {
  const inside = inOwnNetns("--mount");
  const [command = "", ...args] = inside;
  if (spawnSync(command, [...args, "true"], { stdio: "ignore" }).status === 0) return inside;
  print("The tests run without namespaces of their own: this needs unshare and ip, and the right to make namespaces");
  return [];
}

/** Runs the files in network and mount namespaces of their own: whatever a test does wrong, this machine's network stays as it is. */
export async function runFenced(
  title: string,
  paths: readonly string[],
  print: (line: string) => void,
): Promise<TestCounts> {
  if (paths.length === 0) return addCounts();
  const folder = mkdtempSync(join(tmpdir(), "forwarder-test-"));
  const report = join(folder, "counts.json");
  const startedAt = performance.now();
  try {
    const [command = "", ...args] = [...fence(print), process.execPath, "tools/test-files.ts", report, ...paths];
    await once(spawn(command, args, { stdio: ["ignore", "inherit", "inherit"] }), "close");
    const counts = JSON.parse(readFileSync(report, "utf8")) as TestCounts;
    const tookMs = Math.round(performance.now() - startedAt);
    print(`${counts.failed === 0 ? "✔" : "✖"} ${title}: ${counts.passed} (${tookMs} ms)`);
    return counts;
  } catch (error) {
    print(`✖ ${title}: the run ended without a report: ${String(error)}`);
    return { passed: 0, failed: 1, skips: [] };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
