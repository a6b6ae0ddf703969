import assert from "node:assert/strict";
import { test } from "node:test";
import { settled } from "../nsm/cast.ts";
import { type DriverBinder, Inventory, type PciAddress, parsePciAddress } from "../sriov/index.ts";
import { recordingLog } from "../telemetry/recording-log.ts";
import type { KeptVf } from "../vf/index.ts";
import { watchLateFunctions } from "./late-functions.ts";
import type { KeptFunction } from "./take-up.ts";

const PF = parsePciAddress("01:00.0");
const address = parsePciAddress("01:10.0");
const NAMESPACE = "6ba7b810-9dad-11d1-80b4-00c04fd430c8";
const facts = {
  address,
  pf: PF,
  index: 0,
  iommuGroup: undefined,
  numaNode: undefined,
  kernelDriver: "igbvf",
  driver: "igbvf",
  resources: ["d/x"],
};

test("watchLateFunctions() withholds a VF from the instant it comes until its connection has it again", async () => {
  const inventory = new Inventory(NAMESPACE);
  const before = new Inventory(NAMESPACE);
  before.sync(PF, [facts]);
  const tokenId = before.devicesOf("d/x")[0]?.id ?? "";
  const vf = { address, connectionId: "c1", tokenId } as KeptVf;
  const owner = { spiffeId: "spiffe://d/manager", isManager: true };
  const entry = { connectionId: "c1", owner, stage: "ready", mechanism: "KERNEL", connection: Buffer.of(1) } as const;
  const late = new Map<PciAddress, KeptFunction>([[address, { vf, entry }]]);
  const adopted: string[] = [];
  const stop = watchLateFunctions({
    inventory,
    binder: { netdevNow: async () => undefined } as unknown as DriverBinder,
    left: { connections: [], unmet: new Map(), hidden: new Set(), late, contradicting: new Map() },
    adopt: ({ connectionId, stage }) => void adopted.push(`${connectionId} ${stage}`),
    log: recordingLog(),
  });
  inventory.sync(PF, [facts]);
  // The node is still being asked: a connection that comes now must not get what a client may have.
  assert.equal(inventory.devicesOf("d/x")[0]?.healthy, false);
  assert.throws(() => inventory.take({ connectionId: "c2", tokenId, use: "kernel" }), {
    fault: { kind: "no-free-function", resource: "d/x", use: "kernel", total: 1, because: { quarantined: 1 } },
  });
  await settled();
  const { state, connectionId } = inventory.get(address) ?? {};
  assert.deepEqual([state, connectionId, adopted], ["ready", "c1", ["c1 ready"]]);
  stop();
});
