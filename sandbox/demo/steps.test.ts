import assert from "node:assert/strict";
import { test } from "node:test";
import { systemClock } from "../../src/async/index.ts";
import { Screen } from "./screen.ts";
import { eventually, expectSame, NotSo, Steps } from "./steps.ts";

test("Steps.run() shows what held, what did not and what was not tried", async () => {
  let text = "";
  const terminal = {
    columns: 100,
    write(more: string) {
      text += more;
    },
  };
  const screen = new Screen(terminal, { noColour: true });
  const clock = { ...systemClock, monotonicMs: () => 0 };
  const steps = new Steps(screen, clock);
  await steps.run([
    { title: "one", run: async () => "fine" },
    { title: "two", run: async () => expectSame("drivers", ["iavf"], ["ixgbevf"]) as never },
    { title: "three", run: async () => "never" },
  ]);
  assert.equal(steps.held, false);
  assert.deepEqual(
    text.split("\n").map((line) => line.trim().replaceAll(/ {2,}/g, " ")),
    [
      "✓ one 0.0 ms fine",
      "✗ two 0.0 ms does not hold",
      'expected: drivers ["ixgbevf"]',
      'but it is: ["iavf"]',
      "– three not tried",
      "",
    ],
  );
});

test("eventually() waits for what is looked for, and reports what it saw when the time is up", async () => {
  let observations = 0;
  const observe = () => (++observations >= 3 ? "there" : undefined);
  assert.equal(await eventually(systemClock, { expected: "it", limitMs: 1000, observe, seen: () => "" }), "there");
  const never = eventually(systemClock, {
    expected: "it",
    limitMs: 1,
    observe: () => undefined,
    seen: () => "nothing",
  });
  await assert.rejects(never, new NotSo("it within 1 ms", "nothing"));
});
