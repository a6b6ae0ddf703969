import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { test } from "node:test";
import { Sandbox } from "../../sandbox/sandbox.ts";
import { systemClock } from "../../src/async/index.ts";
import { Fd } from "../../src/kernel/index.ts";
import { silentLog } from "../../src/telemetry/index.ts";
import { needs } from "../needs.ts";
import { eventually } from "./scenes/story.ts";

test("Sandbox.stop() leaves no file and no descriptor behind", async (t) => {
  if (!needs(t, "netns", "veth", "bridge")) return;
  const open = new Set<number>();
  Fd.trace = (what, fd) => void (what === "own" ? open.add(fd) : open.delete(fd));
  t.after(() => {
    Fd.trace = undefined;
  });
  const sandbox = await Sandbox.start({ machine: { realLinks: true }, log: silentLog, clock: systemClock });
  assert.ok(existsSync(`${sandbox.folder}/nsm.sock`));
  await sandbox.stop();
  assert.equal(existsSync(sandbox.folder), false);
  // Sockets close in a later turn.
  await eventually(
    () => [...open],
    (left) => left.length === 0,
  );
});
