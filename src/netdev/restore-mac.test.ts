import assert from "node:assert/strict";
import { test } from "node:test";
import { MacRestore } from "./restore-mac.ts";
import type { Patience } from "./transient.ts";
import { NO_MAC, type PfPort, type VfSettings } from "./vf-settings-through-pf.ts";

const OWN = "02:00:00:00:00:01";

test("MacRestore.makeWay() lets the PF's word go once, also where the PF names what its VF has chosen", async () => {
  const writes: unknown[] = [];
  const port = {
    pf: "0000:01:00.0 (enp1s0f0, driver ice)",
    read: async () => ({ mac: OWN }) as VfSettings,
    write: async (_vf: number, change: unknown) => void writes.push(change),
  } as unknown as PfPort;
  const patience = { run: (_step: string, act: () => Promise<unknown>) => act() } as unknown as Patience;
  const home = new MacRestore({ port, index: 3 }, { before: OWN, own: OWN }, patience);
  assert.deepEqual([await home.makeWay(), await home.makeWay()], [true, true]);
  assert.deepEqual(writes, [{ mac: "00:00:00:00:00:00" }]);
});

test("MacRestore.finish() withdraws an address that the PF did not name before, and leaves one that the VF has chosen", async () => {
  const writes: unknown[] = [];
  const actual: VfSettings[] = [{ mac: "02:00:00:00:00:55", vlan: 0 }];
  const port = {
    pf: "0000:01:00.0 (enp1s0f0, driver igb)",
    read: async () => actual[0] ?? assert.fail("it has settings"),
    async write(_vf: number, change: VfSettings) {
      writes.push(change);
      actual[0] = { ...actual[0], ...change };
    },
  } as unknown as PfPort;
  const patience = { run: (_step: string, act: () => Promise<unknown>) => act() } as unknown as Patience;
  const home = new MacRestore({ port, index: 3 }, { before: NO_MAC, own: OWN }, patience);
  await home.finish();
  assert.deepEqual(writes.splice(0), [{ mac: NO_MAC }], "the last client's");
  actual[0] = { mac: OWN, vlan: 0 };
  await home.finish();
  assert.deepEqual(writes, []);
});
