import assert from "node:assert/strict";
import { test } from "node:test";
import { AccessError } from "../access/index.ts";
import { DeadlineError } from "../async/index.ts";
import { IdentityError } from "../identity/index.ts";
import { InventoryError } from "../inventory/index.ts";
import { KernelError } from "../kernel/index.ts";
import { NetdevError } from "../netdev/index.ts";
import { DriverError, type PciAddress } from "../pci/index.ts";
import { RpcError, type Status } from "../rpc/index.ts";
import { NsmError } from "./fault.ts";
import { toStatus } from "./grpc-status.ts";

const vf = "0000:3b:02.1" as PciAddress;

const rows: readonly (readonly [string, unknown, Status])[] = [
  [
    "a driver that is not loaded",
    new DriverError(vf, { kind: "driver-missing", driver: "iavf" }),
    "FAILED_PRECONDITION",
  ],
  [
    "a bind that the kernel refused",
    new DriverError(vf, { kind: "bind-refused", driver: "iavf", code: "EIO" }),
    "UNAVAILABLE",
  ],
  ["a network device that does not come", new DriverError(vf, { kind: "no-netdev" }), "UNAVAILABLE"],
  [
    "a journal that cannot be written",
    Object.assign(new Error("the disk is full"), { name: "JournalError" }),
    "UNAVAILABLE",
  ],
  ["a refusal of the kernel", new KernelError("set link 7", 22), "INTERNAL"],
  ["a token that was never given out", new InventoryError({ kind: "unknown-token" }), "NOT_FOUND"],
  ["the host's own namespace", new NetdevError({ kind: "host-namespace" }), "INVALID_ARGUMENT"],
  ["a limit of our own", new DeadlineError("the bind took longer than 10 ms"), "DEADLINE_EXCEEDED"],
  ["a token that cannot be read", new IdentityError({ kind: "bad-token", problem: "x" }), "PERMISSION_DENIED"],
  [
    "a peer without a trusted authority",
    new IdentityError({ kind: "untrusted-peer", problem: "x" }),
    "PERMISSION_DENIED",
  ],
  ["a peer's certificate", new IdentityError({ kind: "bad-certificate", problem: "x" }), "PERMISSION_DENIED"],
  ["an SVID that is awaited", new IdentityError({ kind: "no-svid", waitsFor: "x" }), "UNAVAILABLE"],
  ["a certificate of ours that ended", new IdentityError({ kind: "expired", what: "x", atMs: 0 }), "UNAVAILABLE"],
  ["a key of ours that cannot sign", new IdentityError({ kind: "unusable-key", found: "RSA" }), "INTERNAL"],
  ["a cgroup's name", new AccessError({ kind: "bad-name", text: "x", problem: "y" }), "INVALID_ARGUMENT"],
  ["another pod's cgroup", new AccessError({ kind: "foreign-cgroup", text: "x", pod: "y" }), "PERMISSION_DENIED"],
  ["a pod that is not named", new AccessError({ kind: "no-pod" }), "FAILED_PRECONDITION"],
  ["access that is still in force", new AccessError({ kind: "not-revoked", pod: "x", left: ["y"] }), "UNAVAILABLE"],
  ["an endpoint's own code", new RpcError("PERMISSION_DENIED", "no"), "PERMISSION_DENIED"],
  ["a fault of the program", new TypeError("x is undefined"), "UNKNOWN"],
  [
    "the first of several attempts",
    new NsmError({
      kind: "no-mechanism",
      attempts: [new InventoryError({ kind: "unknown-token" }), new Error("later")],
    }),
    "NOT_FOUND",
  ],
];

for (const [what, error, code] of rows) {
  test(`toStatus() gives ${code} to ${what}`, () => {
    const status = toStatus(error);
    assert.equal(status.code, code);
    assert.ok(status.message.includes((error as Error).message));
  });
}

test("an NsmError has the first attempt as its cause, or the last candidate, and repeats no long value of a peer", () => {
  const [first, last] = [new Error("first"), new Error("last")];
  const failures = [first, last].map((error, at) => ({ endpoint: `nse-${at}`, error }));
  assert.equal(new NsmError({ kind: "no-mechanism", attempts: [first, last] }).cause, first);
  assert.equal(new NsmError({ kind: "candidates-failed", failures }).cause, last);
  const value = "x".repeat(4_000);
  assert.ok(new NsmError({ kind: "bad-value", what: "the name", value, desired: "a short one" }).message.length < 200);
});
