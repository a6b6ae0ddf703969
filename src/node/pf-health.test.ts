import assert from "node:assert/strict";
import { test } from "node:test";
import { systemClock } from "../async/index.ts";
import { parsePciAddress } from "../pci/index.ts";
import { Health } from "../telemetry/index.ts";
import { PfHealth } from "./pf-health.ts";

const address = parsePciAddress("01:00.0");

function setUp() {
  const health = new Health(systemClock);
  const changes = { count: 0 };
  health.onChange(() => {
    changes.count += 1;
  });
  return { pf: new PfHealth(health), changes, codes: () => health.conditions().map(({ code }) => code) };
}

test("PfHealth.fail() leaves of a PF its fault alone, and says the same one once", () => {
  const { pf, changes, codes } = setUp();
  pf.judge(address, true, "no carrier");
  pf.setDriver(address, "driver iavf is not loaded");
  for (let times = 0; times < 2; times += 1) pf.fail({ address, kind: "no-netdev", message: "it has none" });
  assert.deepEqual(codes(), ["pf-unusable"]);
  const { count } = changes;
  pf.fail({ address, kind: "no-netdev", message: "it has none" });
  assert.equal(changes.count, count);
  pf.fail({ address, kind: "other-namespace", message: "it is elsewhere" });
  assert.deepEqual(codes(), ["other-network-namespace"]);
  pf.mend(address);
  assert.deepEqual(codes(), []);
});

test("PfHealth.clear() leaves nothing of a PF that is not managed any more", () => {
  const { pf, codes } = setUp();
  pf.judge(address, true, "no carrier");
  pf.setDriver(address, "driver iavf is not loaded");
  assert.equal(codes().length, 3);
  pf.clear(address);
  assert.deepEqual(codes(), []);
});
