import assert from "node:assert/strict";
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { test } from "node:test";
import { commandInRoot } from "./prepare/prepare.ts";
import { runGuest } from "./run-guest.ts";
import { type GuestPlan, planGuests } from "./topologies.ts";

/** In QEMU's place: tells of each scenario of its plan, and dies in the second one of a plan that begins with the first of all. */
const PROGRAM = `#!${process.execPath}
const { readFileSync } = require("node:fs");
const console = process.argv.map((word) => /^file,id=console,path=(.*)\\/console.log$/.exec(word)?.[1]).find(Boolean);
const { scenarios } = JSON.parse(readFileSync(console + "/plan.json", "utf8"));
const tell = (line) => process.stdout.write(JSON.stringify(line) + "\\n");
for (const [at, scenario] of scenarios.entries()) {
  tell({ kind: "test", scenario, name: "it holds", ms: 1 });
  if (scenarios[0] === "contracts" && at === 1) process.exit(1);
  tell({ kind: "scenario", scenario, ms: 2 });
}
tell({ kind: "done" });
`;

test("runGuest() runs what a guest did not come to in another one, and tells of the scenario that cut it off", async (t) => {
  const root = mkdtempSync(join(tmpdir(), "run-guest-"));
  t.after(() => rmSync(root, { recursive: true }));
  const [loader] = commandInRoot(root, "usr/bin/qemu-system-x86_64");
  mkdirSync(dirname(loader), { recursive: true });
  writeFileSync(loader, PROGRAM);
  chmodSync(loader, 0o755);
  const [plan] = planGuests({ kernels: ["6.12"], only: "hub" }) as [GuestPlan];
  const { kernel, topology } = plan;
  const shares = { project: root, node: root, out: join(root, "out") };
  const machine = { root, vmlinux: "", initramfs: "", kernel, topology, shares };
  const { signal } = new AbortController();
  const { tests } = await runGuest({ plan, machine, program: "guest.mjs", tell: () => {}, signal });
  const [first, cut, ...others] = plan.scenarios;
  assert.deepEqual(
    tests.map(({ scenario, name, error }) => [scenario, name, error === undefined]),
    [
      [first, "it holds", true],
      [cut, "it holds", true],
      [cut, "the whole scenario", false],
      ...others.map((scenario) => [scenario, "it holds", true]),
    ],
  );
});
