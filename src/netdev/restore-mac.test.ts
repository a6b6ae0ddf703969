import assert from "node:assert/strict";
import { test } from "node:test";
import { MacRestore } from "./restore-mac.ts";
import type { Patience } from "./transient.ts";
import type { PfPort, VfSettings } from "./vf-settings-through-pf.ts";

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
