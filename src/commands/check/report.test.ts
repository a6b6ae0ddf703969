import assert from "node:assert/strict";
import test from "node:test";
import { recordingTerminal } from "../testing/fakes.ts";
import { doubt, type Finding, failure, fine } from "./finding.ts";
import { judge } from "./judge.ts";
import { reportJson, reportText } from "./report.ts";
import { soundNode } from "./testing/fakes.ts";

const VFIO = { mechanisms: ["VFIO"] } as const;
const findings: readonly Finding[] = [
  fine("well", "it is well"),
  doubt({ check: "odd", what: "it is odd", why: "it may not work", todo: "look", ...VFIO }),
  failure({ check: "bad", what: "it is bad", why: "it does not work", todo: "mend it", mechanisms: ["KERNEL"] }),
];
const text = (columns: number, isQuiet: boolean) =>
  reportText(findings, recordingTerminal({ columns }), { mechanisms: ["KERNEL", "VFIO"], isQuiet });

test("reportText() that leaves out what is well keeps warnings, and counts each mechanism's own", () => {
  const quiet = text(100, true);
  assert.ok(!quiet.includes("it is well"));
  assert.match(quiet, /^warn {2}odd: it is odd$/m);
  assert.match(quiet, /^KERNEL {2}cannot work here: 1 failure$/m);
  assert.match(quiet, /^VFIO {4}can work here, 1 warning$/m);
});

test("reportText() on a very narrow screen leaves lines that can be read", () => {
  assert.match(text(10, false), /^ {6}to do {2}mend it$/m);
  assert.match(text(10, false), /^warn {2}odd: it is odd$/m);
});

test("reportJson() says that a mechanism works of which only warnings are said", () => {
  assert.deepEqual(JSON.parse(reportJson(findings, "1", ["KERNEL", "VFIO"])).works, { KERNEL: false, VFIO: true });
});

for (const [release, arch, level] of [
  ["5.6.0", "x64", undefined],
  ["5.5.19", "x64", "fail"],
  ["6.12.1", "arm64", undefined],
  ["6.12.1", "riscv64", "fail"],
] as const) {
  test(`judge() of BPF on Linux ${release}, ${arch}: ${level ?? "nothing is wrong"}`, () => {
    const process = { ...soundNode.process, release, arch };
    const cgroups = {
      path: "/sys/fs/cgroup",
      kind: "v2",
      bpfProblem: undefined,
      pods: { trees: ["kubepods"], known: [], missing: [] },
    } as const;
    const found = judge({ ...soundNode, process, cgroups }, ["VFIO"]).find(({ check }) => check === "kernel-for-bpf");
    assert.equal(found?.level, level);
  });
}
