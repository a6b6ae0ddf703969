import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { until, within } from "../../test/scenes/until.ts";
import { type Clock, systemClock } from "../async/index.ts";
import { BlockingWrites, openHostFiles } from "../kernel/index.ts";
import { silentLog } from "../telemetry/index.ts";
import { parsePciAddress } from "./address.ts";
import { discover } from "./discover.ts";
import { parsePfConfig } from "./pf-config.ts";
import { PfReadings } from "./pf-readings.ts";

const [silent, well] = [parsePciAddress("01:00.0"), parsePciAddress("02:00.0")];

/** Two PFs; a read of the first one's number of VFs waits in the kernel until something is written there. */
function twoPfs(t: TestContext) {
  const root = mkdtempSync(join(tmpdir(), "pf-readings-"));
  t.after(() => rmSync(root, { recursive: true }));
  mkdirSync(join(root, "drivers", "iavf"), { recursive: true });
  for (const pf of [silent, well]) {
    mkdirSync(join(root, "devices", pf, "net", "eth0"), { recursive: true });
    symlinkSync("../../drivers/ice", join(root, "devices", pf, "driver"));
    writeFileSync(join(root, "devices", pf, "net", "eth0", "ifindex"), "7\n");
  }
  const fifo = join(root, "devices", silent, "sriov_totalvfs");
  execFileSync("mkfifo", [fifo]);
  writeFileSync(join(root, "devices", well, "sriov_totalvfs"), "8\n");
  const writes = new BlockingWrites(systemClock);
  const [devices, drivers] = ["devices", "drivers"].map((name) => openHostFiles(join(root, name), writes));
  assert.ok(devices && drivers);
  const entry = "{ pfKernelDriver: ice, vfKernelDriver: iavf, capabilities: [a], serviceDomains: [b] }";
  const config = parsePfConfig(`physicalFunctions: { ${silent}: ${entry}, ${well}: ${entry} }`, "pci.config");
  return { fifo, config, files: { devices, drivers, clock: systemClock, log: silentLog } };
}

test("discover() of a PF with a file that does not answer finds the others, and that one when it has answered", async (t) => {
  const { fifo, config, files } = twoPfs(t);
  const answered = Promise.withResolvers<void>();
  const limits = new Set<() => void>();
  let begun = 0;
  const clock: Clock = {
    ...systemClock,
    after(_, callback) {
      begun += 1;
      limits.add(callback);
      return { cancel: () => void limits.delete(callback) };
    },
  };
  const readings = new PfReadings(clock, () => answered.resolve());
  const finding = discover(config, { ...files, readings });
  await until("the PF that answers has answered", () => begun === 2 && limits.size === 1);
  for (const isOver of limits) isOver();
  const found = await finding;
  assert.deepEqual(
    [found.pfs.map(({ address }) => address), found.faults.map(({ kind }) => kind)],
    [[well], ["unreadable"]],
  );
  const again = await within("a node of which one PF hangs", discover(config, { ...files, readings }));
  assert.deepEqual([again.faults.length, begun], [1, 3], "what hangs is not read once more");
  writeFileSync(fifo, "8\n");
  await answered.promise;
  rmSync(fifo);
  writeFileSync(fifo, "8\n");
  assert.equal((await discover(config, { ...files, readings })).pfs.length, 2);
});
