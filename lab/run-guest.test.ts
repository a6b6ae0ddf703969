import assert from "node:assert/strict";
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { type TestContext, test } from "node:test";
import { commandInRoot } from "./prepare/prepare.ts";
import { runGuest } from "./run-guest.ts";
import { type GuestPlan, planGuests } from "./topologies.ts";

/** The pretended guests are programs of their own: what Node is given here is not meant for them. */
const SHEBANG = `#!/usr/bin/env -S -u NODE_OPTIONS ${process.execPath}`;

/** In QEMU's place: reports each scenario of its plan, and dies in the second one of a plan that begins with the first of all. */
const PROGRAM = `${SHEBANG}
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

/** In QEMU's place: stops in its first boot, as a guest does that wants its power cut, and says in the next one what it was given. */
const STOPS_ONCE = `${SHEBANG}
const { appendFileSync, readFileSync } = require("node:fs");
const console = process.argv.map((word) => /^file,id=console,path=(.*)$/.exec(word)?.[1]).find(Boolean);
const { scenarios, boot } = JSON.parse(readFileSync(console.replace("console.log", "plan.json"), "utf8"));
const tell = (line) => process.stdout.write(JSON.stringify(line) + "\\n");
const [scenario] = scenarios;
tell({ kind: "test", scenario, name: JSON.stringify(boot), ms: 1 });
if (boot.number === 0) {
  appendFileSync(console, "[    1.5] lab remembers {\\"pod\\":\\"one\\"}\\r\\n");
  appendFileSync(console, "[    1.6] Kernel panic - not syncing: sysrq triggered crash\\r\\n");
  setInterval(() => {}, 1000);
} else {
  tell({ kind: "scenario", scenario, ms: 2 });
  tell({ kind: "done" });
}
`;

/** Runs a topology with this program in QEMU's place. */
async function resultOf(t: TestContext, only: string, program: string) {
  const root = mkdtempSync(join(tmpdir(), "run-guest-"));
  t.after(() => rmSync(root, { recursive: true }));
  const [loader] = commandInRoot(root, "usr/bin/qemu-system-x86_64");
  mkdirSync(dirname(loader), { recursive: true });
  writeFileSync(loader, program);
  chmodSync(loader, 0o755);
  const [plan] = planGuests({ kernels: ["6.12"], only }) as [GuestPlan];
  const { kernel, topology } = plan;
  const shares = { project: root, node: root, out: join(root, "out") };
  const machine = { root, vmlinux: "", initramfs: "", kernel, topology, shares };
  const { signal } = new AbortController();
  const { tests } = await runGuest({ plan, machine, program: "guest.mjs", report: () => {}, signal });
  return { plan, tests };
}

test("runGuest() runs what a guest did not come to in another one, and reports the scenario that cut it off", async (t) => {
  const { plan, tests } = await resultOf(t, "hub", PROGRAM);
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

test("runGuest() cuts the power of a guest that has stopped for it, and boots it again with what it said last", async (t) => {
  const { tests } = await resultOf(t, "disk", STOPS_ONCE);
  assert.deepEqual(
    tests.map(({ name, error }) => [JSON.parse(name), error]),
    [
      [{ number: 0, remembered: [] }, undefined],
      [{ number: 1, remembered: [{ pod: "one" }] }, undefined],
    ],
  );
});
