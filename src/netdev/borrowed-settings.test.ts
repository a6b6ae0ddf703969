import assert from "node:assert/strict";
import { test } from "node:test";
import { systemClock, systemRandom } from "../async/index.ts";
import { Errno, KernelError } from "../kernel/index.ts";
import { recordingLog } from "../telemetry/recording-log.ts";
import { BorrowedSettings } from "./borrowed-settings.ts";
import type { PfPort, VfSettings } from "./vf-settings-through-pf.ts";

const NO_MAC = "00:00:00:00:00:00";
const MAC = "02:00:00:00:00:05";

function borrowed(
  options: {
    readonly operator?: VfSettings;
    refuses?: string;
    /** How: EINVAL by default. */
    readonly refusal?: keyof typeof Errno;
    /** What the PF holds first. */
    readonly held?: VfSettings;
    readonly before?: VfSettings;
    readonly chosenMac?: string;
    readonly isUnreadable?: boolean;
    /** Each random byte. */
    readonly drawn?: number;
  } = {},
) {
  let actual: VfSettings = { mac: NO_MAC, vlan: 0, spoofCheck: true, ...options.held };
  const done: string[] = [];
  const port: PfPort = {
    pf: "0000:01:00.0 (enp1s0f0, driver igb)",
    async read() {
      if (options.isUnreadable) throw new KernelError("read the VFs", Errno.EIO);
      return actual;
    },
    async write(_vf, change) {
      for (const [setting, value] of Object.entries(change)) {
        if (options.refuses === `${setting}=${value}`) {
          throw new KernelError(`set ${setting}`, Errno[options.refusal ?? "EINVAL"]);
        }
        done.push(`${setting}=${value}`);
        actual = { ...actual, [setting]: value };
      }
    },
  };
  const vf = { port, index: 3, settings: options.operator ?? {} };
  const { drawn } = options;
  const record = async (before: VfSettings) => void done.push(`keep ${Object.keys(before)}`);
  const settings = new BorrowedSettings({
    vf,
    before: options.before ?? {},
    chosenMac: options.chosenMac,
    record,
    clock: systemClock,
    random: drawn === undefined ? systemRandom : { ...systemRandom, bytes: (count) => Buffer.alloc(count, drawn) },
    log: recordingLog(),
  });
  return { settings, done, actual: () => actual };
}

test("BorrowedSettings.apply() keeps what was set before it writes, and restore() writes it back", async () => {
  const { settings, done, actual } = borrowed({ operator: { spoofCheck: false } });
  await settings.apply({ mac: MAC, vlan: 7 });
  assert.deepEqual(done, ["keep spoofCheck,mac,vlan", `mac=${MAC}`, "vlan=7", "spoofCheck=false"]);
  assert.equal(await settings.isInForce({ mac: MAC, vlan: 7 }), true);
  assert.equal(await settings.isInForce({ mac: MAC, vlan: 8 }), false);
  await settings.restore();
  assert.deepEqual(actual(), { mac: NO_MAC, vlan: 0, spoofCheck: true });
});

test("BorrowedSettings.apply() writes nothing a second time, and leaves an address alone that is not requested", async () => {
  const { settings, done } = borrowed();
  await settings.apply({ mac: "", vlan: 7 });
  await settings.apply({ mac: "", vlan: 7 });
  assert.deepEqual(done, ["keep vlan", "vlan=7"]);
});

test("BorrowedSettings.restore() gives back what a previous instance found", async () => {
  const { settings, actual } = borrowed({ before: { vlan: 99 } });
  await settings.apply({ vlan: 7 });
  await settings.restore();
  assert.equal(actual().vlan, 99);
});

test("BorrowedSettings.restore() leaves an unused address where the driver takes no empty one", async () => {
  const { settings, actual } = borrowed({ refuses: `mac=${NO_MAC}` });
  await settings.apply({ mac: MAC });
  await settings.restore();
  assert.notEqual(actual().mac, MAC);
  assert.match(actual().mac ?? "", /^[0-9a-f][26ae](:[0-9a-f]{2}){5}$/);
});

test("BorrowedSettings.apply() refuses what makes no sense, and does not let a client out of its VLAN", async () => {
  await assert.rejects(borrowed().settings.apply({ mac: "nonsense" }), /Cannot take "nonsense" as MAC address/);
  await assert.rejects(borrowed({ refuses: "vlan=7" }).settings.apply({ vlan: 7 }), /Cannot set vlan of VF 3/);
});

test("BorrowedSettings.restore() has nothing to put back before the first change, nor a second time", async () => {
  const { settings, done } = borrowed();
  await settings.restore();
  assert.deepEqual(done, []);
  await settings.apply({ vlan: 7 });
  await settings.restore();
  await settings.apply({ vlan: 8 });
  assert.deepEqual(done, ["keep vlan", "vlan=7", "vlan=0", "keep vlan", "vlan=8"], "what was there is kept again");
});

test("BorrowedSettings.restore() reads nothing of a PF of which it has changed nothing", async () => {
  const { settings } = borrowed({ isUnreadable: true });
  await settings.restore();
  await assert.rejects(settings.apply({ vlan: 7 }), /EIO/);
});

test("BorrowedSettings.restore() takes no group address for an unused one, whatever is drawn", async () => {
  for (const drawn of [0x00, 0x01, 0xfd, 0xff]) {
    const { settings, actual } = borrowed({ refuses: `mac=${NO_MAC}`, drawn });
    await settings.apply({ mac: MAC });
    await settings.restore();
    const first = Number.parseInt(actual().mac ?? "", 16);
    assert.equal(first & 0b11, 0b10, `${actual().mac}: of one station, locally administered`);
  }
});

test("BorrowedSettings.apply() states an address that the PF names already, the first time: it may be the VF's choice", async () => {
  const { settings, done } = borrowed({ held: { mac: MAC } });
  await settings.apply({ mac: MAC });
  assert.deepEqual(done, ["keep mac,vlan", `mac=${NO_MAC}`, `mac=${MAC}`]);
  await settings.apply({ mac: MAC });
  assert.equal(done.length, 3);
});

test("BorrowedSettings.isInForce() bears what the PF's driver does not have", async () => {
  const held = { operator: { trust: true }, held: { trust: false } };
  const { settings } = borrowed({ ...held, refuses: "trust=true", refusal: "EOPNOTSUPP" });
  assert.equal(await settings.isInForce({}), false);
  await settings.apply({});
  assert.equal(await settings.isInForce({}), true);
});

test("BorrowedSettings.restore() makes up for what failed when it is called again", async () => {
  const options = { refuses: "vlan=0" };
  const { settings, actual } = borrowed(options);
  await settings.apply({ vlan: 7 });
  await assert.rejects(settings.restore(), /Cannot set vlan of VF 3/);
  options.refuses = "";
  await settings.restore();
  assert.equal(actual().vlan, 0);
});

test("BorrowedSettings leaves no address on the PF where it only named what the VF had chosen, and keeps any other", async () => {
  const own = "02:00:00:00:00:44";
  for (const [chosenMac, mac] of [
    [own, NO_MAC],
    [undefined, own],
    ["02:00:00:00:00:45", own],
  ] as const) {
    const { settings, actual } = borrowed({ held: { mac: own }, ...(chosenMac && { chosenMac }) });
    await settings.apply({ mac: MAC });
    assert.equal(actual().mac, MAC);
    await settings.restore();
    assert.equal(actual().mac, mac);
  }
  const { settings, actual } = borrowed({ held: { mac: own }, chosenMac: own, refuses: `mac=${NO_MAC}` });
  await settings.apply({ mac: MAC });
  await settings.restore();
  assert.equal(actual().mac, own, "of a driver that takes no zero");
});
