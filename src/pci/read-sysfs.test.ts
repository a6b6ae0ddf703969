import assert from "node:assert/strict";
import { test } from "node:test";
import { type HostFiles, KernelError } from "../kernel/index.ts";
import type { PciAddress } from "./address.ts";
import { iommuGroupMembers, netdevIndex, netdevNames, observeVf, orMissing } from "./read-sysfs.ts";

/** Of the files of a node, only what a group is read by. */
function groupOf(classes: Readonly<Record<string, string>>): Pick<HostFiles, "list" | "readText"> {
  return {
    list: async () => Object.keys(classes),
    readText: async (path) => {
      const [address = ""] = path.split("/");
      const text = classes[address];
      if (text === undefined || text === "") throw new KernelError(`read ${path}`, 2);
      return text;
    },
  };
}

test("iommuGroupMembers() leaves the ports of the bus out, and nothing else", async () => {
  const files = groupOf({
    "0000:00:05.0": "0x060400",
    "0000:00:06.0": "0x060000",
    "0000:02:10.0": "0x020000",
    "0000:02:10.2": "", // gone meanwhile
  });
  const members = await iommuGroupMembers(files as HostFiles, "0000:02:10.0" as PciAddress);
  assert.deepEqual(members, ["0000:00:06.0", "0000:02:10.0", "0000:02:10.2"]);
});

/** Files as they lie in sysfs; a folder is what is beneath it. */
function filesOf(paths: Readonly<Record<string, string>>): HostFiles {
  const missing = (path: string) => new KernelError(`open ${path}`, 2);
  const beneath = (path: string) => Object.keys(paths).filter((one) => one.startsWith(`${path}/`));
  return {
    async readText(path: string) {
      const text = paths[path];
      if (text === undefined) throw missing(path);
      return text;
    },
    async readLink(path: string) {
      const target = paths[path];
      if (target === undefined) throw missing(path);
      return target;
    },
    async list(path: string) {
      const names = new Set(beneath(path).map((one) => one.slice(path.length + 1).split("/")[0] ?? ""));
      if (names.size === 0) throw missing(path);
      return [...names];
    },
    exists: async (path: string) => path in paths || beneath(path).length > 0,
  } as unknown as HostFiles;
}

test("netdevNames() finds the network device of a virtio function beneath its virtio device", async () => {
  const address = "0000:00:04.1" as PciAddress;
  const files = filesOf({
    [`${address}/driver`]: "../../../bus/pci/drivers/virtio-pci",
    [`${address}/class`]: "0x020000",
    [`${address}/virtio3/net/eth1/ifindex`]: "7",
  });
  assert.deepEqual(await netdevNames(files, address), ["eth1"]);
  assert.equal(await netdevIndex(files, address, "eth1"), 7);
  assert.equal((await observeVf(files, address)).hasNetdev, true);
});

test("netdevNames() searches beneath no other device of a PCI function, and finds none where its network device is elsewhere", async () => {
  const address = "0000:00:04.1" as PciAddress;
  const away = { [`${address}/driver`]: "../drivers/virtio-pci", [`${address}/virtio3/device`]: "0x1" };
  assert.deepEqual(await netdevNames(filesOf(away), address), []);
  const other = { [`${address}/driver`]: "../drivers/igbvf", [`${address}/virtio3/net/eth1/ifindex`]: "7" };
  assert.deepEqual(await netdevNames(filesOf(other), address), []);
});

test("observeVf() finds a VF that has neither driver, group nor network device", async () => {
  const address = "0000:02:10.0" as PciAddress;
  const of = (isThere: boolean) => {
    const gone = async (path: string) => Promise.reject(new KernelError(`open ${path}`, 2));
    return { readText: gone, readLink: gone, list: gone, exists: async () => isThere } as unknown as HostFiles;
  };
  const nothing = { driver: undefined, iommuGroup: undefined, hasNetdev: false };
  assert.deepEqual(await observeVf(of(true), address), { isPresent: true, ...nothing });
  assert.deepEqual(await observeVf(of(false), address), { isPresent: false, ...nothing });
});

test("orMissing() takes what goes while it is read for missing, and nothing else", async () => {
  const read = (errno: number) => orMissing(Promise.reject(new KernelError("read", errno)));
  assert.deepEqual([await read(2), await read(19)], [undefined, undefined]);
  await assert.rejects(read(5), { code: "EIO" });
});
