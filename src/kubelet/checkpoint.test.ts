import assert from "node:assert/strict";
import { test } from "node:test";
import { parseCheckpoint } from "./checkpoint.ts";

const entry = { PodUID: "uid-1", ContainerName: "app", ResourceName: "worker.domain/10G", AllocResp: "CgA=" };
const holder = { podUid: "uid-1", container: "app", resource: "worker.domain/10G" };
const file = (entries: unknown) => JSON.stringify({ Data: { PodDeviceEntries: entries }, Checksum: 42 });

test("parseCheckpoint() reads the ids of both forms, and leaves out what makes no sense", () => {
  const rows: readonly (readonly [string, unknown, readonly string[]])[] = [
    ["by NUMA node", [{ ...entry, DeviceIDs: { "-1": ["a"], "1": ["b", "c"] } }], ["a", "b", "c"]],
    ["one list", [{ ...entry, DeviceIDs: ["a"] }], ["a"]],
    ["no entries yet", null, []],
    ["odd ids", [{ ...entry, DeviceIDs: { "0": [1, null, "a"], "1": "b" } }], ["a"]],
    ["no ids", [{ ...entry, DeviceIDs: null }], []],
    ["no pod", [{ ...entry, PodUID: 7, DeviceIDs: ["a"] }, null, "text"], []],
    [
      "one behind another without a pod",
      [
        { ...entry, PodUID: 7 },
        { ...entry, DeviceIDs: ["a"] },
      ],
      ["a"],
    ],
  ];
  for (const [name, entries, ids] of rows) {
    assert.deepEqual(parseCheckpoint(file(entries)), new Map(ids.map((id) => [id, holder])), name);
  }
});

test("parseCheckpoint() says of a text that it is no checkpoint", () => {
  const whole = file([{ ...entry, DeviceIDs: ["a"] }]);
  for (const text of ["", "null", "[]", "{}", '{"Data":[]}', '{"Data":{"PodDeviceEntries":{}}}', whole.slice(0, -9)]) {
    assert.equal(parseCheckpoint(text), undefined, text);
  }
});
