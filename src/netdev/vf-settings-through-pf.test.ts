import assert from "node:assert/strict";
import { test } from "node:test";
import { Errno, KernelError } from "../kernel/index.ts";
import { NetdevError } from "./error.ts";
import {
  applyVfSettings,
  differingSettings,
  isBearable,
  type PfPort,
  restoreVfSettings,
  unpinMac,
  type VfSettings,
} from "./vf-settings-through-pf.ts";

const NO_MAC = "00:00:00:00:00:00";
const fresh: VfSettings = {
  mac: NO_MAC,
  vlan: 0,
  spoofCheck: true,
  trust: false,
  linkState: "auto",
  minTxRateMbps: 0,
  maxTxRateMbps: 0,
};

/** A PF that refuses or forgets what is set. */
function pretendPf(
  options: { readonly actual?: VfSettings; readonly refuses?: Record<string, number>; readonly forgets?: string } = {},
) {
  let actual = options.actual ?? fresh;
  const writes: string[] = [];
  const port: PfPort = {
    pf: "0000:01:00.0 (enp1s0f0, driver igb)",
    read: async () => actual,
    async write(vf, change) {
      const settings = Object.entries(change);
      writes.push(`${vf} ${settings.map(([setting, value]) => `${setting}=${value}`).join(" ")}`);
      for (const [setting, value] of settings) {
        const errno = options.refuses?.[`${setting}=${value}`] ?? options.refuses?.[setting];
        if (errno !== undefined) throw new KernelError(`set ${setting}`, errno);
        if (setting !== options.forgets) actual = { ...actual, [setting]: value };
      }
    },
  };
  return { port, writes, actual: () => actual };
}

test("applyVfSettings() writes what differs, address first, the two rates together", async () => {
  const pf = pretendPf();
  const desired = {
    maxTxRateMbps: 100,
    minTxRateMbps: 10,
    trust: true,
    vlan: 7,
    mac: "02:00:00:00:00:05",
    spoofCheck: true,
  };
  const { before, faults } = await applyVfSettings(pf.port, 3, desired);
  assert.deepEqual(faults, []);
  const rates = "3 minTxRateMbps=10 maxTxRateMbps=100";
  assert.deepEqual(pf.writes, ["3 mac=02:00:00:00:00:05", "3 vlan=7", "3 trust=true", rates]);
  assert.deepEqual(before, {
    mac: NO_MAC,
    vlan: 0,
    spoofCheck: true,
    trust: false,
    minTxRateMbps: 0,
    maxTxRateMbps: 0,
  });
  await applyVfSettings(pf.port, 3, desired);
  assert.equal(pf.writes.length, 4);
  assert.deepEqual(await restoreVfSettings(pf.port, 3, { before, ownMac: undefined }), []);
  assert.deepEqual(pf.actual(), fresh);
});

test("applyVfSettings() continues past a setting that is refused, and says whether the driver can do it at all", async () => {
  const pf = pretendPf({ refuses: { mac: Errno.EINVAL, linkState: Errno.EOPNOTSUPP } });
  const desired: VfSettings = { mac: "02:00:00:00:00:05", vlan: 7, linkState: "enable" };
  const { faults } = await applyVfSettings(pf.port, 0, desired);
  assert.equal(pf.actual().vlan, 7);
  assert.deepEqual(
    faults.map((fault) => [fault.setting, isBearable(fault, desired)]),
    [
      ["mac", false],
      ["linkState", true],
    ],
  );
  assert.match(faults[0]?.error.message ?? "", /Cannot set mac of VF 0: Cannot set mac: invalid argument \(EINVAL\)/);
  assert.match(faults[1]?.error.message ?? "", /Cannot set linkState of VF 0: the driver of its PF cannot do that/);
});

test("applyVfSettings() notices a PF that says yes and does nothing", async () => {
  const pf = pretendPf({ forgets: "vlan" });
  const { faults } = await applyVfSettings(pf.port, 1, { vlan: 5 });
  assert.match(faults[0]?.error.message ?? "", /Cannot set vlan of VF 1: the PF took 5 and still says 0/);
});

const unbearable: readonly (readonly [VfSettings, number])[] = [
  [{ vlan: 5 }, Errno.EOPNOTSUPP],
  [{ mac: "02:00:00:00:00:05" }, Errno.EOPNOTSUPP],
  [{ spoofCheck: true }, Errno.EOPNOTSUPP],
  [{ trust: true }, Errno.EPERM],
];
for (const [desired, errno] of unbearable) {
  test(`isBearable() says no to ${JSON.stringify(desired)} with errno ${errno}`, async () => {
    const pf = pretendPf({
      actual: { ...fresh, spoofCheck: false },
      refuses: Object.fromEntries(Object.keys(desired).map((key) => [key, errno])),
    });
    const { faults } = await applyVfSettings(pf.port, 0, desired);
    assert.deepEqual(
      faults.map((fault) => isBearable(fault, desired)),
      [false],
    );
  });
}

test("restoreVfSettings() gives a VF its own address where the PF takes no empty one", async () => {
  const actual = { ...fresh, mac: "02:00:00:00:00:05", vlan: 9 };
  const pf = pretendPf({ actual, refuses: { [`mac=${NO_MAC}`]: Errno.EINVAL } });
  const before = { mac: NO_MAC, vlan: 0 };
  assert.deepEqual(await restoreVfSettings(pf.port, 0, { before, ownMac: "02:00:00:00:aa:01" }), []);
  assert.deepEqual([pf.actual().mac, pf.actual().vlan], ["02:00:00:00:aa:01", 0]);
});

test("restoreVfSettings() resets the VLAN though the address cannot be reset, and reports the address", async () => {
  const pf = pretendPf({ actual: { ...fresh, mac: "02:00:00:00:00:05", vlan: 9 }, refuses: { mac: Errno.EBUSY } });
  const faults = await restoreVfSettings(pf.port, 0, { before: { mac: NO_MAC, vlan: 0 }, ownMac: "02:00:00:00:aa:01" });
  assert.deepEqual(
    faults.map((fault) => fault.setting),
    ["mac"],
  );
  assert.equal(pf.actual().vlan, 0);
});

/** A PF whose driver has no ndo_get_vf_config, and no ndo_set_vf_* either. */
function silentPf() {
  const writes: VfSettings[] = [];
  const port: PfPort = {
    pf: "0000:3b:00.0 (ens6f0, driver mlx5_core)",
    read: async () => ({}),
    async write(_vf, change) {
      writes.push(change);
      throw new KernelError("set the VF", Errno.EOPNOTSUPP);
    },
  };
  return { port, writes };
}

test("applyVfSettings() requests nothing of a PF that reports nothing of its VFs, and needs nothing to be put back", async () => {
  const { port, writes } = silentPf();
  for (const desired of [
    { vlan: 0 },
    { vlan: 0, mac: undefined, trust: undefined },
    { mac: NO_MAC, maxTxRateMbps: 0 },
  ]) {
    const { before, faults } = await applyVfSettings(port, 3, desired);
    assert.deepEqual(faults, []);
    assert.deepEqual(await restoreVfSettings(port, 3, { before, ownMac: "02:00:00:00:00:01" }), []);
    assert.deepEqual(differingSettings({}, desired), []);
  }
  assert.deepEqual(writes, []);
});

test("applyVfSettings() refuses what is requested of such a PF, and names it and its driver", async () => {
  const { port, writes } = silentPf();
  const desired = { mac: "02:00:00:00:00:05", vlan: 7, trust: true, spoofCheck: false };
  const { faults } = await applyVfSettings(port, 3, desired);
  assert.deepEqual(
    faults.map(({ setting }) => setting),
    ["mac", "vlan", "spoofCheck", "trust"],
  );
  assert.match(
    faults[0]?.error.message ?? "",
    /Cannot set mac of VF 3: PF 0000:3b:00\.0 \(ens6f0, driver mlx5_core\) reports nothing of its VFs/,
  );
  assert.ok(faults.every((fault) => !isBearable(fault, desired)));
  assert.deepEqual(writes, []);
});

test("applyVfSettings() that restates an address clears it once, before the address and not before each setting", async () => {
  const mac = "02:00:00:00:00:05";
  const pf = pretendPf({ actual: { ...fresh, mac } });
  await applyVfSettings(pf.port, 3, { mac, vlan: 7 }, { restatesMac: true });
  assert.deepEqual(pf.writes, [`3 mac=${NO_MAC}`, `3 mac=${mac}`, "3 vlan=7"]);
});

test("applyVfSettings() says of a driver that stays busy that it is, and not that it refused the setting", async () => {
  const busy = new NetdevError({ kind: "busy", link: "VF 3", step: "set vlan", answer: "EBUSY", tries: 3, afterMs: 9 });
  const patience = {
    run: <T>(step: string, act: () => Promise<T>) => (step.startsWith("set ") ? Promise.reject(busy) : act()),
  };
  const { faults } = await applyVfSettings(pretendPf().port, 3, { vlan: 7 }, { patience });
  assert.deepEqual(faults, [{ setting: "vlan", error: busy }]);
});

test("unpinMac() says no of a driver that takes no zero, and fails where the PF has gone or is busy", async () => {
  const unpin = (errno?: number) => unpinMac(pretendPf({ refuses: errno ? { mac: errno } : {} }).port, 3, undefined);
  assert.equal(await unpin(), true);
  for (const errno of [Errno.EINVAL, Errno.EADDRNOTAVAIL, Errno.EOPNOTSUPP]) assert.equal(await unpin(errno), false);
  await assert.rejects(unpin(Errno.ENODEV), { code: "ENODEV" });
  await assert.rejects(unpin(Errno.EBUSY), { code: "EBUSY" });
});

test("restoreVfSettings() puts no other address in the place of the operator's, and reports that it is not back", async () => {
  const operators = "02:00:00:00:0b:01";
  const pf = pretendPf({
    actual: { ...fresh, mac: "02:00:00:00:00:05" },
    refuses: { [`mac=${operators}`]: Errno.EINVAL },
  });
  const faults = await restoreVfSettings(pf.port, 0, { before: { mac: operators }, ownMac: "02:00:00:00:aa:01" });
  assert.deepEqual([faults.map(({ setting }) => setting), pf.writes], [["mac"], [`0 mac=${operators}`]]);
});
