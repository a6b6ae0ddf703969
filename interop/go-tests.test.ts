import assert from "node:assert/strict";
import { test } from "node:test";
import { type GoTestEvent, GoTestStory } from "./go-tests.ts";

test("GoTestStory counts tests, not their parts, and shows what failed", () => {
  const { story, printed, hear } = setUp();
  hear({ Action: "output", Test: "TestA", Output: "    a_test.go:3: 12 rounds\n" });
  hear({ Action: "pass", Test: "TestA/part", Elapsed: 1 });
  hear({ Action: "pass", Test: "TestA", Elapsed: 1.5 });
  hear({ Action: "output", Test: "TestB/part", Output: "    b_test.go:9: not so\n" });
  hear({ Action: "fail", Test: "TestB", Elapsed: 0 });
  hear({ Action: "fail" });
  assert.deepEqual(story.end("go test ended with 1"), { passed: 1, failed: 1, skips: [] });
  assert.deepEqual(printed, ["✔ TestA (1.5 s)", "  12 rounds", "✖ TestB (0 s)", "      b_test.go:9: not so"]);
});

test("GoTestStory counts a run that failed without a test as one failure, and shows what it said", () => {
  const { story, printed, hear } = setUp();
  hear({ Action: "pass", Test: "TestA", Elapsed: 1 });
  story.hear("a.go:1: syntax error");
  assert.deepEqual(story.end("go test ended with 2"), { passed: 1, failed: 1, skips: [] });
  assert.deepEqual(printed.slice(1), ["a.go:1: syntax error", "✖ go test ended with 2"]);
});

test("GoTestStory keeps the reason of a skip", () => {
  const { story, hear } = setUp();
  hear({ Action: "output", Test: "TestA", Output: "    a_test.go:3: needs a device\n" });
  hear({ Action: "skip", Test: "TestA" });
  const skips = [{ name: "TestA", why: "    a_test.go:3: needs a device" }];
  assert.deepEqual(story.end(""), { passed: 0, failed: 0, skips });
});

function setUp() {
  const printed: string[] = [];
  const story = new GoTestStory((line) => printed.push(line));
  return { story, printed, hear: (event: GoTestEvent) => story.hear(JSON.stringify(event)) };
}
