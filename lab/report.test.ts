import assert from "node:assert/strict";
import { test } from "node:test";
import { closingLine, figuresOf, type GuestLine, readGuestLine, resultOf } from "./report.ts";

const guest = { kernel: "6.12", topology: "hub", ms: 12_345 } as const;
const held: GuestLine = { kind: "test", scenario: "kernel", name: "it holds", ms: 10 };
const over: GuestLine = { kind: "scenario", scenario: "kernel", ms: 20 };

test("readGuestLine() takes our lines, and leaves what a kernel writes between them", () => {
  assert.deepEqual(readGuestLine(`${JSON.stringify(over)}\r`), over);
  for (const text of ["", "[   12.3] igb 0000:01:00.0: link up", "{}", "null", '{"kind":']) {
    assert.equal(readGuestLine(text), undefined, text);
  }
});

test("resultOf() counts what was reported", () => {
  const failed: GuestLine = { ...held, name: "it does not", error: "why" };
  const { tests } = resultOf(guest, ["kernel"], [held, failed, over, { kind: "done" }], undefined);
  assert.deepEqual(
    tests.map(({ name, error }) => [name, error]),
    [
      ["it holds", undefined],
      ["it does not", "why"],
    ],
  );
});

const silences = [
  { says: "a scenario that was never begun", lines: [held, over], planned: ["kernel", "vfio"], error: /did not come/ },
  { says: "a scenario that did not end", lines: [held], planned: ["kernel"], error: /killed after 9 s/ },
  { says: "a scenario without a test", lines: [over], planned: ["kernel"], error: /has no test/ },
  { says: "a guest that ended badly after all", lines: [held, over], planned: ["kernel"], error: /killed after 9 s/ },
];
for (const { says, lines, planned, error } of silences) {
  test(`resultOf() makes a failure of ${says}`, () => {
    const { tests } = resultOf(guest, planned, lines, "it was killed after 9 s");
    const failures = tests.filter((one) => one.error !== undefined);
    assert.equal(failures.length, 1);
    assert.match(failures[0]?.error ?? "", error);
  });
}

test("closingLine() counts the tests of all guests", () => {
  const good = resultOf(guest, ["kernel"], [held, over, { kind: "done" }], undefined);
  assert.equal(closingLine([good, good, resultOf(guest, ["vfio"], [], "gone")]), "2 passed, 1 failed");
});

test("figuresOf() has each step of each kernel, and how long its guests took", () => {
  const figures: GuestLine = { kind: "figures", figures: { bind: [3, 1, 2.04] } };
  const result = resultOf(guest, ["kernel"], [held, over, figures, { kind: "done" }], undefined);
  assert.deepEqual(figuresOf([result]), {
    "linux_6.12": { bind_ms: { samples: 3, p50: 2, max: 3 }, guest_s: { hub: 12.3 } },
  });
});
