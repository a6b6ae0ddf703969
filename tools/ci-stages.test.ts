import assert from "node:assert/strict";
import test from "node:test";
import {
  CI_LIMIT_MINUTES,
  failuresOf,
  judgeStage,
  limitOf,
  SET_UP_MINUTES,
  type Stage,
  type StageEnd,
  stages,
} from "./ci-stages.ts";

const counting: Stage = { name: "a", command: ["a"], budgetMinutes: 1, says: "closing line" };
const whole: Stage = { ...counting, says: "exit code" };
const ended = (output: string, code: number | null = 0): StageEnd => ({ code, output });

test("the stages' budgets fit twice over into CI's limit, with room for what is to come", () => {
  const sum = stages.reduce((minutes, { budgetMinutes }) => minutes + budgetMinutes, 0);
  assert.ok(2 * sum + SET_UP_MINUTES <= CI_LIMIT_MINUTES, `${sum} minutes`);
});

test("limitOf() leaves a stage all the time that the following ones do not need", () => {
  const rest = CI_LIMIT_MINUTES - SET_UP_MINUTES;
  assert.equal(limitOf([], 0), rest);
  assert.equal(limitOf([], 12.5), rest - 12.5);
  assert.equal(limitOf([counting, { ...counting, budgetMinutes: 7 }], 10), rest - 10 - 8);
  assert.equal(limitOf([], 1_000), 0);
});

test("judgeStage() takes the counts of a stage that ended well", () => {
  const result = judgeStage(counting, ended("x\n7 passed, 0 failed\n"), false);
  assert.deepEqual(result, { passed: 7, failed: 0, skipped: 0, problems: [] });
  assert.deepEqual(judgeStage(whole, ended(""), false), { passed: 1, failed: 0, skipped: 0, problems: [] });
});

test("judgeStage() fails a stage that prints nothing, counts nothing, or ends badly without naming a test", () => {
  const rows: [StageEnd, RegExp][] = [
    [ended(""), /without a line of counts/],
    [ended("all is well\n"), /without a line of counts/],
    [ended("0 passed, 0 failed\n"), /counted no test/],
    [ended("5 passed, 0 failed\n", 1), /ended with 1/],
    [ended("5 passed, 0 failed\n", null), /signal/],
    [{ ...ended("5 passed, 0 failed\n", null), overLimitMinutes: 2 }, /ended after 2 minutes/],
    [{ ...ended("", null), overLimitMinutes: 2 }, /ended after 2 minutes/],
  ];
  for (const [end, why] of rows) {
    const { failed, problems } = judgeStage(counting, end, false);
    assert.equal(failed, 1, String(why));
    assert.match(problems.join(), why);
  }
  assert.deepEqual(judgeStage(whole, ended("", 3), false), {
    passed: 0,
    failed: 1,
    skipped: 0,
    problems: ["it ended with 3"],
  });
});

test("judgeStage() counts failed tests once", () => {
  const { failed, problems } = judgeStage(counting, ended("5 passed, 2 failed\n", 1), false);
  assert.deepEqual([failed, problems], [2, []]);
});

test("judgeStage() fails a skip that is not allowed", () => {
  const end = ended("5 passed, 0 failed, 2 skipped\n");
  assert.deepEqual(judgeStage(counting, end, false), {
    passed: 5,
    failed: 1,
    skipped: 2,
    problems: ["2 skipped, which is not allowed"],
  });
  assert.equal(judgeStage(counting, end, true).failed, 0);
});

test("failuresOf() finds what failed with its reasons, and nothing else", () => {
  const log = [
    "✔ good (1 s)",
    "",
    "✖ a test",
    "  a.test.ts",
    "  Error: bad",
    "",
    "✔ 96 MiB: well (2 s)",
    "    known: killed",
    "✖ 96 MiB: badly (3 s)",
    "    ✖ a call was lost",
    "1 passed, 2 failed",
  ].join("\n");
  assert.deepEqual(failuresOf(log), [
    "✖ a test\n  a.test.ts\n  Error: bad",
    "✖ 96 MiB: badly (3 s)",
    "    ✖ a call was lost",
  ]);
  assert.deepEqual(failuresOf(log, 2)[0], "✖ a test\n  a.test.ts");
  assert.deepEqual(failuresOf("✔ good\n1 passed, 0 failed"), []);
});
