import assert from "node:assert/strict";
import { test } from "node:test";
import { Errno, type HostFiles, KernelError } from "../kernel/index.ts";
import { parsePciAddress } from "./address.ts";
import { DriverWrites } from "./driver-writes.ts";

const VF = parsePciAddress("01:10.0");
const timeout = new KernelError("write", Errno.ETIMEDOUT);

/** A file whose write is given up; it has returned before, or returns when the test says so. */
function slowFile(hasReturned: boolean) {
  const file = { return: () => {} };
  const writeText: HostFiles["writeText"] = async (_path, _text, { onLateReturn = () => {} } = {}) => {
    file.return = onLateReturn;
    if (hasReturned) onLateReturn();
    throw timeout;
  };
  return { file, files: { writeText } as unknown as HostFiles };
}

test("DriverWrites knows of a write that was given up until it returns", async () => {
  const writes = new DriverWrites();
  const { file, files } = slowFile(false);
  await assert.rejects(writes.write(VF, files, ["igbvf/bind", VF]), timeout);
  assert.deepEqual([writes.isStuck(VF), writes.isStuck(parsePciAddress("01:10.1"))], [true, false]);
  file.return();
  assert.equal(writes.isStuck(VF), false);
});

test("DriverWrites holds no VF for a write that returned while it was given up", async () => {
  const writes = new DriverWrites();
  await assert.rejects(writes.write(VF, slowFile(true).files, ["igbvf/bind", VF]), timeout);
  assert.equal(writes.isStuck(VF), false);
});
