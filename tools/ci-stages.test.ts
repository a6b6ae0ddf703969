import assert from "node:assert/strict";
import test from "node:test";
import { CI_LIMIT_MINUTES, judgeStage, SET_UP_MINUTES, type Stage, type StageEnd, stages } from "./ci-stages.ts";

const counting: Stage = { name: "a", command: ["a"], budgetMinutes: 1, limitMinutes: 2, says: "closing line" };
const whole: Stage = { ...counting, says: "exit code" };
const ended = (output: string, code: number | null = 0): StageEnd => ({ code, isOverLimit: false, output });

test("the stages' limits fit into CI's own, with time for what they need of the machine", () => {
  const sum = stages.reduce((minutes, { limitMinutes }) => minutes + limitMinutes, SET_UP_MINUTES);
  assert.ok(sum <= CI_LIMIT_MINUTES, `${sum} minutes`);
  for (const { name, budgetMinutes, limitMinutes } of stages) assert.ok(budgetMinutes < limitMinutes, name);
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
    [{ ...ended("5 passed, 0 failed\n", null), isOverLimit: true }, /longer than 2 minutes/],
    [{ ...ended("", null), isOverLimit: true }, /longer than 2 minutes/],
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

test("judgeStage() fails a skip that nobody allowed", () => {
  const end = ended("5 passed, 0 failed, 2 skipped\n");
  assert.deepEqual(judgeStage(counting, end, false), {
    passed: 5,
    failed: 1,
    skipped: 2,
    problems: ["2 skipped, which nobody allowed"],
  });
  assert.equal(judgeStage(counting, end, true).failed, 0);
});
