import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { test } from "node:test";
import { BlockingWrites, openHostFiles } from "../kernel/index.ts";
import { readQueueSettings } from "./queue-settings.ts";

const files = {
  "vf0/ifindex": "7",
  "vf0/threaded": "1",
  "vf0/gro_flush_timeout": "0",
  "vf0/queues/rx-0/rps_cpus": "00000000,00000003",
  "vf0/queues/rx-0/rps_flow_cnt": "0",
  "vf0/queues/rx-1/rps_cpus": "00000000,00000000",
  "vf0/queues/rx-1/rps_flow_cnt": "4096",
  "vf0/queues/tx-0/xps_cpus": "1",
};

test("readQueueSettings() reads what is not 0, and nothing of another link of that name", async (t) => {
  const root = mkdtempSync(join(tmpdir(), "queues-"));
  t.after(() => rmSync(root, { recursive: true }));
  for (const [path, text] of Object.entries(files)) {
    mkdirSync(dirname(join(root, path)), { recursive: true });
    writeFileSync(join(root, path), `${text}\n`);
  }
  const classNet = openHostFiles(root, new BlockingWrites());
  assert.deepEqual(await readQueueSettings(classNet, { index: 7, name: "vf0" }), {
    threaded: "1",
    "queues/rx-0/rps_cpus": "00000000,00000003",
    "queues/rx-1/rps_flow_cnt": "4096",
  });
  assert.deepEqual(await readQueueSettings(classNet, { index: 8, name: "vf0" }), {});
  assert.deepEqual(await readQueueSettings(classNet, { index: 7, name: "vf1" }), {});
});
