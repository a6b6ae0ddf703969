import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { type MachineOptions, startMachine } from "../../sandbox/machine/machine.ts";
import type { Given } from "../../src/commands/command.ts";
import { discover } from "../../src/commands/discover/run.ts";
import { someSurroundings } from "../../src/commands/testing/fakes.ts";
import { BlockingWrites, openHostFiles } from "../../src/kernel/index.ts";
import { parsePfConfig } from "../../src/pci/index.ts";

async function discovered(t: TestContext, options: MachineOptions, values: Readonly<Record<string, string[]>> = {}) {
  const machine = await startMachine(options);
  t.after(() => machine.stop());
  const around = someSurroundings();
  const given: Given = { has: (name) => name in values, values: (name) => values[name] ?? [], words: [] };
  const code = await discover(given, around, { devices: machine.devices, proc: pretendProc(t) });
  return { machine, code, text: around.out.text, reported: around.err.text };
}

/** A routing table that sends everything by the first physical function. */
function pretendProc(t: TestContext) {
  const root = mkdtempSync(join(tmpdir(), "proc-"));
  t.after(() => rmSync(root, { recursive: true, force: true }));
  mkdirSync(join(root, "self", "net"), { recursive: true });
  // cat /proc/net/route   (Linux 6.18; columns as they are, an interface of the pretend machine put in)
  writeFileSync(
    join(root, "self", "net", "route"),
    "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n" +
      "enp1s0f0\t00000000\t0100000A\t0003\t0\t0\t0\t00000000\t0\t0\t0\n" +
      "enp2s0f0\t0000000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n",
  );
  return openHostFiles(root, new BlockingWrites());
}

test("discover says what to do where the node's PCI devices cannot be read", async () => {
  const around = someSurroundings({ pciDevicesPath: "/nowhere/devices" });
  const code = await discover({ has: () => false, values: () => [], words: [] }, around);
  const said =
    "forwarder discover: Cannot list /nowhere/devices: no such file or directory (ENOENT); " +
    "set NSM_PCI_DEVICES_PATH to where the node's /sys/bus/pci/devices is\n";
  assert.deepEqual([code, around.out.text, around.err.text], [1, "", said]);
});

test("discover prints a file that the forwarder can use for the same node", async (t) => {
  const { code, text, reported } = await discovered(
    t,
    { pfs: 2, vfsPerPf: 4 },
    { "service-domain": ["worker.domain"] },
  );
  assert.deepEqual([code, reported], [0, ""]);
  const { physicalFunctions } = parsePfConfig(text, "discovered");
  assert.deepEqual(
    physicalFunctions.map(({ pfKernelDriver, vfKernelDriver, serviceDomains }) => ({
      pfKernelDriver,
      vfKernelDriver,
      serviceDomains,
    })),
    [0, 1].map(() => ({ pfKernelDriver: "igb", vfKernelDriver: "igbvf", serviceDomains: ["worker.domain"] })),
  );
  assert.deepEqual(
    physicalFunctions.map(({ capabilities }) => capabilities),
    [0, 1].map(() => ["intel", "10G"]),
  );
  assert.doesNotMatch(text, /CHANGE/);
  assert.match(
    text,
    /enp1s0f0, \[8086:10c9\], NUMA node 0, 4 of 4 virtual functions made\n {2}# The node's own traffic/,
  );
  assert.doesNotMatch(text, /enp2s0f0.*\n {2}# The node's own traffic/);
});

test("discover says what it had to guess, and is valid all the same", async (t) => {
  const { text } = await discovered(t, { pfs: 1, numVfs: 0 });
  assert.match(text, /- service\.domain\.1 +# CHANGE/);
  assert.match(text, /^ {4}# numVfs: 8 /m);
  assert.equal(parsePfConfig(text, "discovered").physicalFunctions.length, 1);
});

test("discover ends with 1 on a node without adapters, and with 2 for a name that kubelet would refuse", async (t) => {
  const none = await discovered(t, { pfs: 0 });
  assert.deepEqual([none.code, parsePfConfig(none.text, "discovered").physicalFunctions], [1, []]);
  assert.match(none.reported, /no network adapter at all/);
  const wrong = await discovered(t, {}, { "service-domain": ["Not A Name"] });
  assert.deepEqual([wrong.code, wrong.text], [2, ""]);
});
