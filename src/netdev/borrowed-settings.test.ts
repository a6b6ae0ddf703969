import assert from "node:assert/strict";
import { test } from "node:test";
import { systemClock, systemRandom } from "../async/index.ts";
import { Errno, KernelError } from "../kernel/index.ts";
import { recordingLog } from "../telemetry/recording-log.ts";
import { BorrowedSettings } from "./borrowed-settings.ts";
import type { PfPort, VfSettings } from "./vf-settings-through-pf.ts";

const NO_MAC = "00:00:00:00:00:00";
const MAC = "02:00:00:00:00:05";

function lent(
  options: { readonly operator?: VfSettings; readonly refuses?: string; readonly before?: VfSettings } = {},
) {
  let actual: VfSettings = { mac: NO_MAC, vlan: 0, spoofCheck: true };
  const done: string[] = [];
  const port: PfPort = {
    pf: "0000:01:00.0 (enp1s0f0, driver igb)",
    read: async () => actual,
    async write(_vf, change) {
      for (const [setting, value] of Object.entries(change)) {
        if (options.refuses === `${setting}=${value}`) throw new KernelError(`set ${setting}`, Errno.EINVAL);
        done.push(`${setting}=${value}`);
        actual = { ...actual, [setting]: value };
      }
    },
  };
  const vf = { port, index: 3, settings: options.operator ?? {} };
  const record = async (before: VfSettings) => void done.push(`keep ${Object.keys(before)}`);
  const settings = new BorrowedSettings({
    vf,
    before: options.before ?? {},
    record,
    clock: systemClock,
    random: systemRandom,
    log: recordingLog(),
  });
  return { settings, done, actual: () => actual };
}

test("BorrowedSettings.apply() keeps what was set before it writes, and restore() writes it back", async () => {
  const { settings, done, actual } = lent({ operator: { spoofCheck: false } });
  await settings.apply({ mac: MAC, vlan: 7 });
  assert.deepEqual(done, ["keep spoofCheck,mac,vlan", `mac=${MAC}`, "vlan=7", "spoofCheck=false"]);
  assert.equal(await settings.isInForce({ mac: MAC, vlan: 7 }), true);
  assert.equal(await settings.isInForce({ mac: MAC, vlan: 8 }), false);
  await settings.restore();
  assert.deepEqual(actual(), { mac: NO_MAC, vlan: 0, spoofCheck: true });
});

test("BorrowedSettings.apply() writes nothing a second time, and leaves an address alone that is not requested", async () => {
  const { settings, done } = lent();
  await settings.apply({ mac: "", vlan: 7 });
  await settings.apply({ mac: "", vlan: 7 });
  assert.deepEqual(done, ["keep vlan", "vlan=7"]);
});

test("BorrowedSettings.restore() gives back what a previous instance found", async () => {
  const { settings, actual } = lent({ before: { vlan: 99 } });
  await settings.apply({ vlan: 7 });
  await settings.restore();
  assert.equal(actual().vlan, 99);
});

test("BorrowedSettings.restore() leaves an unused address where the driver takes no empty one", async () => {
  const { settings, actual } = lent({ refuses: `mac=${NO_MAC}` });
  await settings.apply({ mac: MAC });
  await settings.restore();
  assert.notEqual(actual().mac, MAC);
  assert.match(actual().mac ?? "", /^[0-9a-f][26ae](:[0-9a-f]{2}){5}$/);
});

test("BorrowedSettings.apply() refuses what makes no sense, and does not let a client out of its VLAN", async () => {
  await assert.rejects(lent().settings.apply({ mac: "nonsense" }), /Cannot take "nonsense" as MAC address/);
  await assert.rejects(lent({ refuses: "vlan=7" }).settings.apply({ vlan: 7 }), /Cannot set vlan of VF 3/);
});
