import assert from "node:assert/strict";
import { test } from "node:test";
import { deviceNumberOf, devOf } from "./device-node.ts";

test("devOf() and deviceNumberOf() agree with the numbers that stat prints", () => {
  for (const [device, dev] of [
    [{ major: 1, minor: 3 }, 0x103n], // stat -c %r /dev/null: 259
    [{ major: 10, minor: 196 }, 0xac4n],
    [{ major: 245, minor: 300 }, 0x10f52cn], // python3 -c 'import os; print(hex(os.makedev(245, 300)))'
    [{ major: 4096, minor: 1 }, 0x100000000001n], // python3 -c 'import os; print(hex(os.makedev(4096, 1)))'
  ] as const) {
    assert.equal(devOf(device), dev);
    assert.deepEqual(deviceNumberOf(dev), device);
  }
});
