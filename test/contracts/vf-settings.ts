// What a physical function keeps about its virtual ones, and what it refuses: rtnetlink on a real one (igb), the pretend port.
import assert from "node:assert/strict";
import { KernelError } from "../../src/kernel/index.ts";
import type { PfPort, VfSettings } from "../../src/netdev/index.ts";
import type { DriverSubject } from "./driver-binding.ts";

/** Also with the port of `pf`, and the number of `vf` there. */
export interface SettingsSubject extends DriverSubject {
  readonly port: PfPort;
  readonly index: number;
  /** The address of the VF's network device. */
  macOfNetdev(): Promise<string>;
  /** Gives that network device an address. @throws {KernelError} */
  setMacOfNetdev(mac: string): Promise<void>;
}

const NO_MAC = "00:00:00:00:00:00";
const MAC = "0a:00:00:00:be:ef";

const CHOSEN = "0a:00:00:00:be:f0";

function codeOf(port: PfPort, index: number, change: VfSettings): Promise<string> {
  return codeOfWork(() => port.write(index, change));
}

async function codeOfWork(work: () => Promise<void>): Promise<string> {
  try {
    await work();
    return "";
  } catch (error) {
    assert.ok(error instanceof KernelError, String(error));
    return error.code;
  }
}

/** Every contract by its sentence; each leaves the settings as it found them. */
export const vfSettingsContracts: Readonly<Record<string, (subject: SettingsSubject) => Promise<void>>> = {
  "a fresh VF has no VLAN, is checked and not trusted": async ({ port, index }) => {
    const { vlan, spoofCheck, trust, minTxRateMbps, maxTxRateMbps } = await port.read(index);
    assert.deepEqual([vlan, spoofCheck, trust, minTxRateMbps, maxTxRateMbps], [0, true, false, 0, 0]);
  },
  "VLAN, spoof check, trust and the upper rate are taken and read back": async ({ port, index }) => {
    const before = await port.read(index);
    for (const change of [{ vlan: 7 }, { spoofCheck: false }, { trust: true }, { maxTxRateMbps: 100 }] as const) {
      await port.write(index, change);
      const [[setting, value] = []] = Object.entries(change);
      assert.equal((await port.read(index))[setting as keyof VfSettings], value, setting);
    }
    await port.write(index, { vlan: 0, spoofCheck: true, trust: false, maxTxRateMbps: 0 });
    assert.deepEqual(await port.read(index), before);
  },
  "what igb cannot do is refused, each in its way": async ({ port, index }) => {
    assert.equal(await codeOf(port, index, { linkState: "enable" }), "EOPNOTSUPP");
    assert.equal(await codeOf(port, index, { minTxRateMbps: 1 }), "EINVAL");
    assert.equal(await codeOf(port, index, { mac: "01:00:00:00:00:01" }), "EINVAL");
    assert.equal(await codeOf(port, index, { vlan: 4096 }), "EINVAL");
  },
  "an address that it has not set is what the VF has chosen; one that it has set lets that choose no other, until it is taken back":
    async (subject) => {
      const { port, index } = subject;
      const own = await subject.macOfNetdev();
      const choose = (mac: string) => codeOfWork(() => subject.setMacOfNetdev(mac));
      assert.equal((await port.read(index)).mac, own);
      assert.equal(await choose(CHOSEN), "");
      assert.equal((await port.read(index)).mac, CHOSEN);
      await port.write(index, { mac: MAC });
      assert.deepEqual([await choose(own), await subject.macOfNetdev()], ["EADDRNOTAVAIL", CHOSEN]);
      await port.write(index, { mac: CHOSEN });
      assert.equal(await choose(own), "EADDRNOTAVAIL");
      await port.write(index, { mac: NO_MAC });
      assert.equal((await port.read(index)).mac, NO_MAC);
      assert.deepEqual([await choose(own), (await port.read(index)).mac], ["", own]);
    },
  "an address reaches the network device only with the next bind, and none may be written again": async (subject) => {
    const { port, index, drivers, vf, kernelDriver } = subject;
    const own = await subject.macOfNetdev();
    await port.write(index, { mac: MAC });
    assert.equal((await port.read(index)).mac, MAC);
    assert.equal(await subject.macOfNetdev(), own);
    await drivers.writeText(`${kernelDriver}/unbind`, vf);
    await drivers.writeText(`${kernelDriver}/bind`, vf);
    assert.equal(await subject.macOfNetdev(), MAC);
    assert.equal(await codeOf(port, index, { mac: NO_MAC }), "");
  },
};
