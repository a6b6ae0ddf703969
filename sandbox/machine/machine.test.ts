import assert from "node:assert/strict";
import { test } from "node:test";
import { deviceAccessContracts } from "../../test/contracts/device-access.ts";
import { driverBindingContracts } from "../../test/contracts/driver-binding.ts";
import { sysfsContracts } from "../../test/contracts/sysfs.ts";
import { type MachineOptions, startMachine } from "./machine.ts";

async function withMachine(
  options: MachineOptions,
  run: (machine: Awaited<ReturnType<typeof startMachine>>) => Promise<void>,
) {
  const machine = await startMachine(options);
  try {
    await run(machine);
  } finally {
    await machine.stop();
  }
}

for (const [sentence, contract] of Object.entries({ ...driverBindingContracts, ...sysfsContracts })) {
  test(`startMachine() is as a kernel: ${sentence}`, () =>
    withMachine({ pfs: 1, vfsPerPf: 4 }, (machine) =>
      contract({ ...machine, pf: "0000:01:00.0", vf: "0000:01:10.2", kernelDriver: "igbvf" }),
    ));
}

for (const [sentence, contract] of Object.entries(deviceAccessContracts)) {
  test(`startMachine() is as a kernel: ${sentence}`, () =>
    withMachine({ pfs: 1, vfsPerPf: 4 }, (machine) => {
      const hold = async (group: string) => {
        const close = machine.openGroup(Number(group));
        return { close: async () => close() };
      };
      return contract({ ...machine, hold, pf: "0000:01:00.0", vf: "0000:01:10.2", kernelDriver: "igbvf" });
    }));
}

test("startMachine() prints its adapters as a table", () =>
  withMachine({ vfsPerPf: 2 }, async (machine) => {
    await machine.pfPort({ address: "0000:02:00.0" }).write(1, { mac: "0a:00:00:00:00:01", vlan: 100 });
    assert.equal(
      await machine.print(),
      [
        "function             driver  group  netdev      mac                vlan",
        "0000:01:00.0 PF      igb     1      enp1s0f0    -                  -",
        "  0000:01:10.0 VF 0  igbvf   2      enp1s0f0v0  -                  0",
        "  0000:01:10.2 VF 1  igbvf   3      enp1s0f0v1  -                  0",
        "0000:02:00.0 PF      igb     4      enp2s0f0    -                  -",
        "  0000:02:10.0 VF 0  igbvf   5      enp2s0f0v0  -                  0",
        "  0000:02:10.2 VF 1  igbvf   6      enp2s0f0v1  0a:00:00:00:00:01  100",
      ].join("\n"),
    );
  }));

test("startMachine() answers settings as igb does", () =>
  withMachine({ pfs: 1, vfsPerPf: 1 }, async (machine) => {
    const port = machine.pfPort({ address: "0000:01:00.0" });
    await assert.rejects(port.write(1, { vlan: 1 }), { code: "EINVAL" });
    await assert.rejects(port.write(0, { linkState: "enable" }), { code: "EOPNOTSUPP" });
    await assert.rejects(port.write(0, { minTxRateMbps: 1 }), { code: "EINVAL" });
    await assert.rejects(port.write(0, { mac: "01:00:00:00:00:01" }), { code: "EINVAL" });
    await port.write(0, { vlan: 7 });
    assert.equal((await port.read(0)).vlan, 7);
  }));

test("startMachine() makes and numbers 256 VFs on each adapter", () =>
  withMachine({ vfsPerPf: 256, numVfs: 0 }, async ({ devices }) => {
    await assert.rejects(devices.writeText("0000:01:00.0/sriov_numvfs", "257"), { code: "ERANGE" });
    await devices.writeText("0000:01:00.0/sriov_numvfs", "256");
    assert.equal(await devices.readLink("0000:01:00.0/virtfn255"), "../0000:03:0f.6");
    assert.equal((await devices.list(".")).length, 258);
  }));

test("startMachine() lets bind fail without autoprobe, until an override says what is wanted", () =>
  withMachine({ pfs: 1, vfsPerPf: 1, numVfs: 0 }, async ({ devices, drivers }) => {
    await devices.writeText("0000:01:00.0/sriov_drivers_autoprobe", "0");
    await devices.writeText("0000:01:00.0/sriov_numvfs", "1");
    await assert.rejects(drivers.writeText("igbvf/bind", "0000:01:10.0"), { code: "ENODEV" });
    await devices.writeText("0000:01:10.0/driver_override", "igbvf");
    await drivers.writeText("igbvf/bind", "0000:01:10.0");
    assert.equal(await devices.exists("0000:01:10.0/net/enp1s0f0v0"), true);
  }));

test("pretendFiles() refuses paths that leave the tree", () =>
  withMachine({ pfs: 1, vfsPerPf: 1 }, async ({ devices }) => {
    for (const path of ["", "../x", "/etc/passwd", "0000:01:00.0/../../x"]) {
      await assert.rejects(devices.readText(path), { name: "TypeError" });
    }
  }));
