import assert from "node:assert/strict";
import { test } from "node:test";
import { Screen } from "../../sandbox/demo/screen.ts";
import { runDemo } from "../../sandbox/demo/story.ts";
import { systemClock } from "../../src/async/index.ts";
import { needs } from "../needs.ts";

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
  assert.equal(text.match(/ ✓ /g)?.length, 21);
});
