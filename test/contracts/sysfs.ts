// What sysfs shows of physical and virtual functions: names, links, numbers. The same for the pretend machine and a real one.
import assert from "node:assert/strict";
import { type HostFiles, KernelError } from "../../src/kernel/index.ts";
import type { DriverSubject } from "./driver-binding.ts";

const ADDRESS = /^[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]$/;

/** Every contract by its sentence. None changes anything. */
export const sysfsContracts: Readonly<Record<string, (subject: DriverSubject) => Promise<void>>> = {
  "a physical function shows how many virtual ones it has and may have, and links to each": async ({ devices, pf }) => {
    const [current, total] = [`${pf}/sriov_numvfs`, `${pf}/sriov_totalvfs`].map((path) => devices.readText(path));
    const names = (await devices.list(pf)).filter((name) => name.startsWith("virtfn"));
    assert.equal(names.length, Number(await current));
    assert.ok(Number(await total) >= names.length);
    for (const name of names) assert.match(await devices.readLink(`${pf}/${name}`), /^\.\.\/[0-9a-f:.]{12}$/);
    assert.match(await devices.readText(`${pf}/sriov_drivers_autoprobe`), /^[01]$/);
    assert.equal(await devices.exists(`${pf}/physfn`), false);
  },
  "a virtual function links to its physical one, and has none of its files": async ({ devices, pf, vf }) => {
    assert.equal(await devices.readLink(`${vf}/physfn`), `../${pf}`);
    for (const name of ["sriov_numvfs", "sriov_totalvfs", "virtfn0"]) {
      assert.equal(await devices.exists(`${vf}/${name}`), false, name);
    }
  },
  "functions are folders of links by their address": async ({ devices, pf, vf }) => {
    const names = await devices.list(".");
    for (const address of [pf, vf]) {
      assert.ok(names.includes(address));
      assert.match(await devices.readLink(address), new RegExp(`/${address}$`));
    }
    assert.ok(names.every((name) => ADDRESS.test(name)));
  },
  "class, NUMA node and override are short texts": async ({ devices, vf }) => {
    assert.equal((await devices.readText(`${vf}/class`)).slice(0, 4), "0x02");
    assert.match(await devices.readText(`${vf}/numa_node`), /^(-1|\d+)$/);
    assert.equal(await devices.readText(`${vf}/driver_override`), "(null)");
  },
  "the driver lists the PCI functions that it has, and takes writes only": async ({
    devices,
    drivers,
    vf,
    kernelDriver,
  }) => {
    assert.match(await devices.readLink(`${vf}/driver`), new RegExp(`/${kernelDriver}$`));
    assert.ok((await drivers.list(kernelDriver)).includes(vf));
    assert.notEqual(await codeOf(drivers, `${kernelDriver}/bind`), "");
  },
  "the group of a PCI function names its members": async ({ devices, vf }) => {
    const group = (await devices.readLink(`${vf}/iommu_group`)).split("/").at(-1) ?? "";
    assert.match(group, /^\d+$/);
    assert.ok((await devices.list(`${vf}/iommu_group/devices`)).includes(vf));
  },
  "a network device has its index, and says when it has no port name": async ({ devices, vf }) => {
    const [ifname = ""] = await devices.list(`${vf}/net`);
    assert.ok(Number(await devices.readText(`${vf}/net/${ifname}/ifindex`)) > 0);
    assert.equal(await codeOf(devices, `${vf}/net/${ifname}/phys_port_name`), "EOPNOTSUPP");
  },
  "what is not there is ENOENT": async ({ devices, pf }) => {
    assert.equal(await codeOf(devices, `${pf}/virtfn99`), "ENOENT");
    assert.equal(await codeOf(devices, "0000:ff:1f.7/class"), "ENOENT");
  },
};

/** What reading it fails with; "" when it can be read. */
async function codeOf(files: HostFiles, path: string): Promise<string> {
  try {
    await files.readText(path);
    return "";
  } catch (error) {
    assert.ok(error instanceof KernelError, String(error));
    return error.code;
  }
}
