// The fuzzers themselves: that they find what is planted, play it again, and feed what honest peers send.
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { test } from "node:test";
import { play } from "./fuzz/engine.ts";
import { attributesBehind, der, protobuf } from "./fuzz/form.ts";
import { measureGrowth } from "./fuzz/growth.ts";
import { hold, type Target } from "./fuzz/target.ts";
import { loadTargets } from "./fuzz/targets/all.ts";
import { identity } from "./fuzz/targets/identity-seeds.ts";

const plain: Target = {
  name: "plain",
  says: "a text",
  seeds: [Buffer.from("hello world")],
  refusals: [SyntaxError],
  run: (input) => {
    if (input.length > 100) throw new SyntaxError("too long");
    return String(input.length);
  },
};

test("play() finds an error that is none of the target's own, and its seed plays it again", async () => {
  const planted: Target = {
    ...plain,
    run(input) {
      if (input.includes("\xff\xff", 0, "latin1")) throw new TypeError("planted");
      return plain.run(input);
    },
  };
  const found = await play(planted, 1, (executions) => executions > 200_000);
  assert.match(found.problem ?? "", /TypeError: planted/);
  const again = await play(planted, found.seed, (executions) => executions > 20_000);
  assert.deepEqual(again.input, found.input);
});

test("play() finds what does not hold, and what a promise is rejected with", async () => {
  const beginsWithH = (input: Buffer) => {
    hold(input[0] === 0x68, () => "begins otherwise");
    return "h";
  };
  const broken: Target = { ...plain, run: beginsWithH };
  assert.equal((await play(broken, 1, (executions) => executions > 10_000)).problem, "begins otherwise");
  const late: Target = { ...plain, run: async () => Promise.reject(new RangeError("late")) };
  assert.match((await play(late, 1, (executions) => executions > 10)).problem ?? "", /RangeError: late/);
});

test("play() takes the target's own errors for answers", async () => {
  const { problem, outcomes } = await play(plain, 1, (executions) => executions >= 5_000);
  assert.equal(problem, undefined);
  assert.ok(outcomes > 50, `${outcomes} outcomes`);
});

test("measureGrowth() finds time that grows with the square of the input, and none that grows with the input", async () => {
  const measured = (msOf: (bytes: number) => number) => {
    let probes = 0;
    const isEnough = () => probes++ >= 3;
    return measureGrowth({ ...plain, growsTo: 16_384 }, 1, isEnough, async (_, input) => msOf(input.length));
  };
  const square = await measured((bytes) => bytes ** 2 / 1e6);
  assert.ok(square.some(({ isBad }) => isBad));
  const even = await measured((bytes) => bytes / 100);
  assert.deepEqual(even, []);
});

test("each form makes the bytes again of the parts that it has found", () => {
  const attributes = Buffer.from("0000000000000000080003006162630005000400ff000000", "hex");
  for (const [form, bytes] of [
    [der, identity.leaf],
    [protobuf, Buffer.from("0a0568656c6c6f10960118012500000000", "hex")],
    [attributesBehind(8), attributes],
  ] as const) {
    assert.deepEqual(form.join(form.split(bytes) ?? []), bytes);
  }
});

test("each target takes a seed that it does not refuse, and plays the same inputs for the same seed", async () => {
  const targets = await loadTargets();
  assert.equal(new Set(targets.map(({ name }) => name)).size, targets.length);
  for (const target of targets) {
    const answers = await Promise.all(target.seeds.map(async (seed) => target.run(Buffer.from(seed))).map(isTaken));
    assert.ok(answers.includes(true), `${target.name} refuses all of its seeds`);
    assert.equal(await inputsOf(target), await inputsOf(target), target.name);
    await target.close?.();
  }
});

async function isTaken(answer: Promise<string>): Promise<boolean> {
  return answer.then(
    () => true,
    () => false,
  );
}

/** A digest of the first inputs. */
async function inputsOf(target: Target): Promise<string> {
  const digest = createHash("sha256");
  const { problem } = await play(
    target,
    7,
    (executions) => executions >= 60,
    (_, __, input) => digest.update(input),
  );
  assert.equal(problem, undefined, target.name);
  return digest.digest("hex");
}
