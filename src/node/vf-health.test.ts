import assert from "node:assert/strict";
import test from "node:test";
import { systemClock } from "../async/index.ts";
import { Inventory } from "../inventory/index.ts";
import { parsePciAddress } from "../pci/index.ts";
import { Health } from "../telemetry/index.ts";
import { reportVfConditions } from "./vf-health.ts";

test("reportVfConditions() reports a quarantined VF until it is restored or gone", () => {
  const [pf, address] = [parsePciAddress("0000:3b:00.0"), parsePciAddress("0000:3b:01.0")];
  const facts = {
    address,
    index: 0,
    pf,
    kernelDriver: "iavf",
    resources: ["a/b"],
    iommuGroup: 1,
    numaNode: 0,
    driver: "iavf",
  };
  const inventory = new Inventory("1b4e28ba-2fa1-11d2-883f-0016d3cca427");
  const stuck = { code: "write-stuck", error: "it is stuck" } as const;
  const health = new Health(systemClock);
  reportVfConditions(inventory, health);
  const reported = () => health.conditions().map(({ code, subject, sentence }) => [code, subject, sentence]);
  inventory.sync(pf, [facts]);
  assert.deepEqual(reported(), []);
  inventory.raise(address, { code: "being-cleaned" });
  assert.deepEqual(reported(), [], "each Close does that");
  inventory.raise(address, stuck);
  assert.deepEqual(reported(), [["vf-quarantined", address, `${address} is given to no client: it is stuck`]]);
  assert.equal(health.ready.value, true);
  inventory.clear(address, stuck);
  assert.deepEqual(reported(), []);
  inventory.raise(address, stuck);
  inventory.sync(pf, []);
  assert.deepEqual(reported(), []);
});
