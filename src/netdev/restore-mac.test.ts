import assert from "node:assert/strict";
import { test } from "node:test";
import { Errno, KernelError } from "../kernel/index.ts";
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
  const restore = new MacRestore({ port, index: 3 }, { before: OWN, own: OWN }, patience);
  assert.deepEqual([await restore.makeWay(), await restore.makeWay()], [true, true]);
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
  const restore = new MacRestore({ port, index: 3 }, { before: NO_MAC, own: OWN }, patience);
  await restore.finish();
  assert.deepEqual(writes.splice(0), [{ mac: NO_MAC }], "the last client's");
  actual[0] = { mac: OWN, vlan: 0 };
  await restore.finish();
  assert.deepEqual(writes, []);
});

/** A PF that names `mac`, and takes no zero when it `refusesZero`. */
function macRestore(before: string, options: { readonly mac: string; readonly refusesZero?: boolean }) {
  let { mac } = options;
  const writes: (string | undefined)[] = [];
  const port = {
    pf: "0000:01:00.0 (enp1s0f0, driver igb)",
    read: async () => ({ mac }) as VfSettings,
    async write(_vf: number, change: VfSettings) {
      if (options.refusesZero && change.mac === NO_MAC) throw new KernelError("set mac", Errno.EINVAL);
      writes.push(change.mac);
      mac = change.mac ?? mac;
    },
  } as unknown as PfPort;
  const patience = { run: (_step: string, act: () => Promise<unknown>) => act() } as unknown as Patience;
  const choose = (chosen: string) => {
    mac = chosen;
  };
  return { restore: new MacRestore({ port, index: 3 }, { before, own: OWN }, patience), writes, choose };
}

const OPERATORS = "02:00:00:00:0b:01";

test("MacRestore.finish() puts the operator's address back though the PF names the link's own", async () => {
  const { restore, writes } = macRestore(OPERATORS, { mac: OWN });
  await restore.finish();
  assert.deepEqual(writes, [OPERATORS]);
});

test("MacRestore.makeWay() has the PF's word do where it cannot be removed", async () => {
  const { restore, writes } = macRestore(OPERATORS, { mac: "02:00:00:00:00:55", refusesZero: true });
  assert.equal(await restore.makeWay(), false);
  assert.deepEqual(writes, [OPERATORS]);
});

test("MacRestore.makeWay() makes way again after the PF's word is back", async () => {
  const { restore, writes } = macRestore(OPERATORS, { mac: OPERATORS });
  assert.equal(await restore.makeWay(), true);
  await restore.finish();
  assert.equal(await restore.makeWay(), true);
  assert.deepEqual(writes, [NO_MAC, OPERATORS, NO_MAC]);
});

test("MacRestore.finish() states an operator's address again that the PF names only because the VF has chosen it", async () => {
  const { restore, writes, choose } = macRestore(OWN, { mac: "02:00:00:00:00:55" });
  assert.equal(await restore.makeWay(), true);
  choose(OWN);
  await restore.finish();
  assert.deepEqual(writes, [NO_MAC, NO_MAC, OWN]);
});

test("MacRestore.isInDoubt() is so of an address that the PF names and is not to have set", async () => {
  const isInDoubt = (before: string, mac: string) => macRestore(before, { mac }).restore.isInDoubt();
  assert.deepEqual(
    [await isInDoubt(NO_MAC, OWN), await isInDoubt(NO_MAC, NO_MAC), await isInDoubt(OPERATORS, OPERATORS)],
    [true, false, false],
  );
});
