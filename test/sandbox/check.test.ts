import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { type TestContext, test } from "node:test";
import { type MachineOptions, startMachine } from "../../sandbox/machine.ts";
import { someSurroundings } from "../../src/commands/cast.ts";
import type { Finding } from "../../src/commands/check/finding.ts";
import { check } from "../../src/commands/check/run.ts";
import type { CommandSettings, Given } from "../../src/commands/command.ts";
import { BlockingWrites, openHostFiles } from "../../src/kernel/index.ts";

/** A folder with these files and folders in it; a name that ends in a slash is a folder. */
function tree(t: TestContext, entries: Readonly<Record<string, string>>): string {
  const root = mkdtempSync(join(tmpdir(), "check-"));
  t.after(() => rmSync(root, { recursive: true, force: true }));
  for (const [name, text] of Object.entries(entries)) {
    const path = join(root, name);
    mkdirSync(name.endsWith("/") ? path : dirname(path), { recursive: true });
    if (!name.endsWith("/")) writeFileSync(path, text);
  }
  return root;
}

async function listening(t: TestContext, path: string): Promise<void> {
  const server = createServer((socket) => socket.destroy()).listen(path);
  await new Promise((resolve) => server.once("listening", resolve));
  t.after(() => new Promise((resolve) => server.close(resolve)));
}

const json: Given = { has: (name) => name === "json", values: () => [], words: [] };

interface Checked {
  readonly code: number;
  readonly works: Readonly<Record<string, boolean>>;
  /** "fail nsmgr", with the subject where there is one. */
  readonly lines: readonly string[];
  readonly findings: readonly Finding[];
}

async function checked(t: TestContext, options: MachineOptions, settings: Partial<CommandSettings>): Promise<Checked> {
  const machine = await startMachine(options);
  t.after(() => machine.stop());
  const config = tree(t, { "pci.config": machine.configText });
  const sys = tree(t, { "kernel/iommu_groups/1/": "", "module/vfio_iommu_type1/": "", "class/net/eth0/device/": "" });
  const around = someSurroundings({ sriovConfigFile: join(config, "pci.config"), ...settings });
  const writes = new BlockingWrites();
  const { devices, drivers, vfio } = machine;
  const files = { devices, drivers, vfio, proc: openHostFiles("/proc", writes), sys: openHostFiles(sys, writes) };
  const code = await check(json, around, files);
  const { works, findings } = JSON.parse(around.out.text) as Pick<Checked, "works" | "findings">;
  const lines = findings.map(({ level, check: name, subject }) => [level, name, subject].filter(Boolean).join(" "));
  return { code, works, findings, lines };
}

const PFS = ["0000:01:00.0", "0000:02:00.0"];

test("check finds the functions of a sound node in order, as the forwarder would", async (t) => {
  const { lines } = await checked(t, {}, {});
  for (const pf of PFS) {
    assert.ok(lines.includes(`ok pf ${pf}`), lines.join("\n"));
    assert.ok(lines.includes(`ok iommu-group ${pf}`), lines.join("\n"));
  }
  for (const line of [
    "ok pf-config",
    "ok iommu",
    "ok vfio-pci",
    "ok vfio-nodes",
    "ok network-namespace",
    "ok kernel",
  ]) {
    assert.ok(lines.includes(line), `${line} in\n${lines.join("\n")}`);
  }
});

test("check makes no functions", async (t) => {
  const { findings } = await checked(t, { numVfs: 0 }, {});
  const told = findings.filter(({ check: name }) => name === "pf").map(({ what }) => what);
  assert.deepEqual(
    told,
    ["enp1s0f0", "enp2s0f0"].map((ifname) => `${ifname} (igb), no functions yet; the forwarder makes 8 at its start`),
  );
});

test("check tells of groups that are shared with others", async (t) => {
  const { lines, works } = await checked(t, { iommu: "with-pf" }, {});
  for (const pf of PFS) assert.ok(lines.includes(`fail iommu-group ${pf}`), lines.join("\n"));
  assert.equal(works["VFIO"], false);
});

test("check connects to the peers, and tells a dead socket from none", async (t) => {
  const root = tree(t, { "plugins/": "", "pods/": "", "spire.sock": "" });
  await listening(t, join(root, "nsm.io.sock"));
  await listening(t, join(root, "plugins", "kubelet.sock"));
  const { code, works, lines, findings } = await checked(
    t,
    {},
    {
      connectTo: `unix://${join(root, "nsm.io.sock")}`,
      spiffeEndpointSocket: `unix://${join(root, "spire.sock")}`,
      devicePluginPath: join(root, "plugins"),
      podResourcesPath: join(root, "pods"),
      statePath: join(root, "state", "deep"),
    },
  );
  for (const line of ["ok nsmgr", "ok kubelet", "ok plugin-folder", "fail spire-agent", "fail pod-resources"]) {
    assert.ok(lines.includes(line), `${line} in\n${lines.join("\n")}`);
  }
  const whatOf = (name: string) => findings.find((one) => one.check === name)?.what ?? "";
  assert.match(whatOf("spire-agent"), /nobody listens at .*spire\.sock any more/);
  assert.match(whatOf("pod-resources"), /no socket .*pods\/kubelet\.sock/);
  assert.match(whatOf("state-folder"), /state\/deep/);
  assert.deepEqual([code, works], [1, { KERNEL: false, VFIO: false }]);
});

test("check names every mistake of the list with its place", async (t) => {
  const root = tree(t, { "pci.config": "physicalFunctions:\n  0000:3b:00.0:\n    pfKernelDriver: ice\n" });
  const { findings } = await checked(t, {}, { sriovConfigFile: join(root, "pci.config") });
  const told = findings.filter(({ check: name }) => name === "pf-config");
  assert.deepEqual([told.length, told.every(({ level }) => level === "fail")], [3, true]);
  for (const { what } of told) assert.match(what, /pci\.config:\d+:\d+: /);
});
