import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, readlinkSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { goTestArguments } from "../../interop/go-tests.ts";
import { fence } from "../../tools/fence.ts";
import { needs } from "../needs.ts";

test("goTestArguments() leaves the build where the network is, and puts the test program behind the fence", (t) => {
  if (!needs(t, "go", "netns")) return;
  const folder = mkdtempSync(join(tmpdir(), "go-tests-"));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  writeFileSync(join(folder, "go.mod"), "module probe\n\ngo 1.26\n");
  writeFileSync(
    join(folder, "probe_test.go"),
    `package probe\n\nimport (\n\t"os"\n\t"testing"\n)\n\nfunc TestNamespace(t *testing.T) {\n\tnow, _ := os.Readlink("/proc/self/ns/net")\n\tt.Log(now)\n}\n`,
  );
  const inside = fence(() => undefined);
  const { stdout } = spawnSync("go", goTestArguments({ fence: inside, words: [] }), { cwd: folder, encoding: "utf8" });
  const seen = /net:\[\d+\]/.exec(stdout)?.[0];
  assert.ok(seen, `the test program ran: ${stdout}`);
  assert.notEqual(seen, readlinkSync("/proc/self/ns/net"), "in a namespace of its own");
});
