// The text of a refusal names nothing of another peer's.
import assert from "node:assert/strict";
import { test } from "node:test";
import { AccessError } from "../access/index.ts";
import { InventoryError } from "../inventory/index.ts";
import { DriverError, parsePciAddress } from "../pci/index.ts";
import { NsmError } from "./fault.ts";
import { toStatus } from "./grpc-status.ts";

/** Each is another peer's: its connection, its pod, its identity. */
const connectionId = "connection-of-another";
const pod = "pod-of-another";
const holder = "4711 (process-of-another)";
const others = [connectionId, pod, holder];

const refusals = [
  new InventoryError({ kind: "token-in-use", connectionId }),
  new InventoryError({ kind: "vf-in-use", address: "0000:01:00.1", connectionId }),
  new AccessError({ kind: "foreign-cgroup", text: "kubepods/own", pod }),
  new NsmError({ kind: "not-the-owner", id: connectionId }),
  new DriverError(parsePciAddress("0000:01:00.1"), {
    kind: "group-open",
    group: 7,
    processes: [holder],
  }),
] as const;

for (const refusal of refusals) {
  const wrapped = [
    refusal,
    new NsmError({ kind: "no-mechanism", attempts: [refusal, refusal] }),
    new NsmError({ kind: "candidates-failed", failures: [{ endpoint: "nse-1", error: refusal }] }),
    new NsmError({ kind: "teardown-failed", failure: refusal }),
  ];
  test(`${refusal.name} ${refusal.fault.kind} says to a peer what is so, and not whose it is`, () => {
    for (const error of wrapped) {
      const { message } = toStatus(error);
      assert.ok(message.length > 20);
      for (const other of others) assert.ok(!message.includes(other), message);
    }
  });
}
