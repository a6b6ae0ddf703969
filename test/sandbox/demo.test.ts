import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { Screen } from "../../sandbox/demo/screen.ts";
import { runDemo } from "../../sandbox/demo/story.ts";
import { systemClock } from "../../src/async/index.ts";
import { has, needs } from "../needs.ts";

test("the demo holds from its first step to its last", { timeout: 60_000 }, async (t) => {
  if (!needs(t, "netns", "veth", "bridge")) return;
  let text = "";
  const terminal = {
    columns: 120,
    write(more: string) {
      text += more;
    },
  };
  const screen = new Screen(terminal, { noColour: true });
  const stop = new AbortController().signal;
  const held = await runDemo({
    isOnce: true,
    isLogShown: false,
    whyNoLinks: undefined,
    screen,
    clock: systemClock,
    stop,
  });
  assert.ok(held, text);
  // The last six are those of VFIO.
  assert.equal(text.match(/ ✓ /g)?.length, has("root") && has("cgroup1-devices") && has("mknod") ? 27 : 21);
});

test("the demo holds for somebody who is not root, in a user namespace of their own", { timeout: 60_000 }, (t) => {
  if (!needs(t, "root", "userns", "veth", "bridge")) return; // root, to become somebody else
  const nobody = 65_534;
  const args = [fileURLToPath(new URL("../../sandbox/demo/main.ts", import.meta.url)), "--once"];
  const reads = ["-e", 'require("node:fs").readFileSync(process.argv[1])', ...args];
  if (spawnSync(process.execPath, reads, { uid: nobody, gid: nobody }).status !== 0) {
    t.skip("needs a checkout that everybody may read");
    return;
  }
  const done = spawnSync(process.execPath, args, { uid: nobody, gid: nobody, encoding: "utf8" });
  assert.equal(done.status, 0, done.stdout + done.stderr);
  assert.match(done.stdout, /Every step that this machine can run held; 6 were left out/);
});
