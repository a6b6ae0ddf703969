import assert from "node:assert/strict";
import { test } from "node:test";
import { Latest } from "../async/index.ts";
import { Inventory } from "../inventory/index.ts";
import { HandClock } from "../nsm/testing/fakes.ts";
import { parsePciAddress } from "../pci/index.ts";
import { createMetrics, Health } from "../telemetry/index.ts";
import { declareHealthMetrics, declareIdentityMetrics, declareNodeMetrics } from "./node-metrics.ts";

const pf = parsePciAddress("01:00.0");
const idle = parsePciAddress("02:00.0");

test("declareNodeMetrics() shows what the inventory, the survey and the drivers' queue say at each scrape", async () => {
  const inventory = new Inventory("6ba7b810-9dad-11d1-80b4-00c04fd430c8");
  const common = { pf, iommuGroup: undefined, numaNode: 0, kernelDriver: "igbvf", driver: "igbvf", resources: ["d/x"] };
  const addresses = [0, 1, 2, 3].map((n) => parsePciAddress(`01:10.${n}`));
  inventory.sync(
    pf,
    addresses.map((address, index) => ({ ...common, address, index })),
  );
  const [reserved, unwell, stuck] = addresses;
  assert.ok(reserved && unwell && stuck);
  const idOf = (address: unknown) => inventory.devicesOf("d/x").find((one) => one.address === address)?.id ?? "";
  inventory.reserveToken(idOf(reserved));
  inventory.raise(unwell, { code: "pf-without-carrier", error: "its link is down" });
  inventory.raise(stuck, { code: "write-stuck", error: "the kernel does not finish a write" });
  const survey = {
    config: { physicalFunctions: [{ address: pf }, { address: idle }] },
    problemOf: (address: unknown) => (address === idle ? "it is gone" : undefined),
  };
  const metrics = createMetrics();
  declareNodeMetrics(metrics, { inventory, survey, binder: { waiting: 3 } } as never);
  const text = await metrics.text();
  for (const line of [
    'nsm_sriov_virtual_functions{pf="0000:01:00.0",state="idle"} 2',
    'nsm_sriov_virtual_functions{pf="0000:01:00.0",state="quarantined"} 1',
    'nsm_sriov_virtual_functions{pf="0000:01:00.0",state="reserved"} 1',
    'nsm_sriov_virtual_functions_unhealthy{pf="0000:01:00.0"} 2',
    'nsm_sriov_virtual_function_conditions{pf="0000:01:00.0",code="pf-without-carrier"} 1',
    'nsm_sriov_physical_function_up{pf="0000:01:00.0"} 1',
    'nsm_sriov_physical_function_up{pf="0000:02:00.0"} 0',
    'nsm_sriov_tokens{resource="d/x",state="allocated"} 1',
    'nsm_sriov_tokens{resource="d/x",state="free"} 1',
    'nsm_sriov_tokens{resource="d/x",state="unavailable"} 2',
    "nsm_sriov_driver_queue_length 3",
  ]) {
    assert.ok(text.includes(`${line}\n`), `no ${line} in\n${text}`);
  }
});

test("declareHealthMetrics() and declareIdentityMetrics() show readiness, conditions and the end of the SVID", async () => {
  const [metrics, health] = [createMetrics(), new Health(new HandClock())];
  const current = new Latest<{ notAfterMs: number }>();
  declareHealthMetrics(metrics, health);
  declareIdentityMetrics(metrics, { current } as never);
  assert.match(await metrics.text(), /nsm_sriov_ready 1\n/);
  assert.doesNotMatch(await metrics.text(), /svid_expiry_timestamp_seconds \d/);
  health.condition("svid-missing", "no answer");
  for (const resource of ["d/x", "d/y"]) health.condition("resource-not-registered").raise("gone", resource);
  current.set({ notAfterMs: 1_700_000_000_000 });
  const text = await metrics.text();
  assert.match(text, /nsm_sriov_ready 0\n/);
  assert.match(text, /nsm_sriov_conditions\{code="svid-missing",severity="blocking"\} 1\n/);
  assert.match(text, /nsm_sriov_conditions\{code="resource-not-registered",severity="warning"\} 2\n/);
  assert.match(text, /nsm_sriov_svid_expiry_timestamp_seconds 1700000000\n/);
});
