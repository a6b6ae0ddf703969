import assert from "node:assert/strict";
import { mkdtempSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { addressOf, BpfCommand, bpf, Errno, Fd, KernelError, makeCharDevice, offHeap } from "../../src/kernel/index.ts";
import { needs } from "../needs.ts";

test("makeCharDevice() makes a node that is the device, and says when one is there", (t) => {
  if (!needs(t, "mknod")) return;
  const folder = mkdtempSync(join(tmpdir(), "dev-"));
  t.after(() => rmSync(folder, { recursive: true }));
  const path = join(folder, "null");
  makeCharDevice(path, { major: 1, minor: 3 }, 0o600);
  assert.equal(statSync(path).rdev, statSync("/dev/null").rdev);
  assert.equal(statSync(path).mode & 0o777, 0o600);
  assert.throws(() => makeCharDevice(path, { major: 1, minor: 3 }, 0o600), {
    code: "EEXIST",
    message: /make device node/,
  });
});

/** BPF_PROG_TYPE_CGROUP_DEVICE, include/uapi/linux/bpf.h. */
const CGROUP_DEVICE = 15;
const LOAD_TRIES = 10;

function load(instructions: readonly string[]): Fd {
  const code = offHeap(instructions.length * 8);
  code.set(Buffer.from(instructions.join(""), "hex"));
  const licence = offHeap(16);
  licence.write("Apache-2.0");
  const attributes = offHeap(128);
  attributes.writeUInt32LE(CGROUP_DEVICE, 0);
  attributes.writeUInt32LE(instructions.length, 4);
  attributes.writeBigUInt64LE(addressOf(code), 8);
  attributes.writeBigUInt64LE(addressOf(licence), 16);
  for (let tries = 1; ; tries++) {
    try {
      return Fd.own(bpf("load a device program", BpfCommand.PROG_LOAD, attributes));
    } catch (error) {
      // The verifier gives up when a signal arrives.
      if (!(error instanceof KernelError) || error.errno !== Errno.EAGAIN || tries === LOAD_TRIES) throw error;
    }
  }
}

test("bpf() loads a program that the verifier takes, and reports one that it refuses", (t) => {
  if (!needs(t, "bpf")) return;
  const program = load(["b700000001000000", "9500000000000000"]); // r0 = 1; exit
  assert.match(String(program.number), /^\d+$/);
  program.close();
  assert.throws(() => load(["9500000000000000"]), { code: /EACCES|EINVAL/ }); // exit without a result
});
