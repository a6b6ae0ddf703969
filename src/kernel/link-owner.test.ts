import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { BlockingWrites } from "./blocking-writes.ts";
import { Errno } from "./errno.ts";
import { KernelError } from "./error.ts";
import { openHostFiles } from "./host-files.ts";
import { describeOwner, isLinkOf, isRepresentor, type LinkPlace, linkOwners } from "./link-owner.ts";
import type { Link } from "./netlink/link.ts";

const VF = "0000:3b:02.1";

const rows = [
  { what: "a NIC", parent: { name: VF, bus: "pci" }, owner: VF, text: `PCI function ${VF}` },
  { what: "a NIC, by its driver's word", parent: { name: VF, bus: undefined }, owner: VF, text: `PCI function ${VF}` },
  {
    what: "a subfunction of a PF",
    parent: { name: "mlx5_core.sf.4", bus: "auxiliary" },
    owner: undefined,
    text: "device mlx5_core.sf.4 of bus auxiliary",
  },
  {
    what: "a device of another bus with such a name",
    parent: { name: VF, bus: "vmbus" },
    owner: undefined,
    text: `device ${VF} of bus vmbus`,
  },
  {
    what: "a bridge, by its driver's word",
    parent: { name: "N/A", bus: undefined },
    owner: undefined,
    text: "device N/A",
  },
  { what: "a veth", parent: undefined, kind: "veth", owner: undefined, text: "no device (it is a veth)" },
];

for (const { what, parent, kind, owner, text } of rows) {
  test(`describeOwner() reports what ${what} sits on`, () => {
    const found = describeOwner({ kind, portName: undefined }, parent);
    assert.deepEqual(found, { pciFunction: owner, text });
  });
}

test("isLinkOf() knows the representor of a VF, which has the PF as parent, from the PF itself", () => {
  const owner = { pciFunction: "0000:3b:00.0", text: "" };
  for (const [portName, isOwn] of [
    [undefined, true],
    ["p0", true],
    ["pf0vf3", false],
    ["c1pf0sf88", false],
  ] as const) {
    assert.equal(isLinkOf({ portName }, owner, "0000:3b:00.0"), isOwn, portName);
    assert.equal(isRepresentor(portName), !isOwn, portName);
    assert.equal(isLinkOf({ portName }, owner, VF), false);
  }
  assert.equal(isLinkOf({ portName: undefined }, { pciFunction: undefined, text: "" }, VF), false);
});

/** A kernel before 5.14, whose link 4 has these names, one at each read, and whose drivers answer as set. */
function oldKernel(names: readonly string[], drivers: Readonly<Record<string, string>>) {
  const left = [...names];
  const link = { name: left.shift(), index: 4, kind: undefined, parentDevice: undefined } as Link;
  const linkByIndex = async () => {
    const name = left.shift();
    return name === undefined ? undefined : { ...link, name };
  };
  const queryDriver = (_: unknown, name: string) => {
    const said = drivers[name];
    if (said === undefined) throw new KernelError("ask", Errno.ENODEV);
    return said;
  };
  const ownerOf = linkOwners(openHostFiles("/nonexistent", new BlockingWrites()), queryDriver);
  return ownerOf({ rtnl: { linkByIndex } } as unknown as LinkPlace, link);
}

test("linkOwners() takes a driver's word only of a link that had the name all the time", async () => {
  const drivers = { eth4: "0000:02:00.0", ens6f0v1: VF };
  assert.equal((await oldKernel(["ens6f0v1", "ens6f0v1"], drivers)).pciFunction, VF);
  // Another link has its former name by the time that the driver is queried.
  assert.equal((await oldKernel(["eth4", "ens6f0v1", "ens6f0v1"], drivers)).pciFunction, VF);
  await assert.rejects(oldKernel(["eth4"], drivers), { code: "ENODEV" });
});

test("linkOwners() says that it cannot say while a driver is being reset, not that the link is another device's", async () => {
  await assert.rejects(oldKernel(["ens6f0v1", "ens6f0v1"], {}), {
    code: "EAGAIN",
    message: /its driver is being reset/,
  });
});

test("linkOwners() queries no driver about a link that software made", async () => {
  const ownerOf = linkOwners(openHostFiles("/nonexistent", new BlockingWrites()));
  const veth = { name: "vf0", index: 4, kind: "veth", parentDevice: undefined, parentBus: undefined } as Link;
  // There is no namespace in which one could be queried.
  assert.deepEqual(await ownerOf({} as LinkPlace, veth), { pciFunction: undefined, text: "no device (it is a veth)" });
});

test("linkOwners() follows a virtio device to its PCI function, and to none where it sits on no PCI bus", async (t) => {
  const root = mkdtempSync(join(tmpdir(), "buses-"));
  t.after(() => rmSync(root, { recursive: true }));
  mkdirSync(join(root, "virtio/devices"), { recursive: true });
  // As `readlink /sys/bus/virtio/devices/virtio2` says, and on a machine with virtio-mmio.
  symlinkSync("../../../devices/pci0000:00/0000:00:03.0/virtio2", join(root, "virtio/devices/virtio2"));
  symlinkSync("../../../devices/platform/a003e00.virtio_mmio/virtio3", join(root, "virtio/devices/virtio3"));
  const ownerOf = linkOwners(openHostFiles(root, new BlockingWrites()));
  const on = (parentDevice: string) =>
    ownerOf({} as LinkPlace, { name: "eth0", index: 4, parentDevice, parentBus: "virtio" } as Link);
  assert.deepEqual(await on("virtio2"), {
    pciFunction: "0000:00:03.0",
    text: "virtio2 of PCI function 0000:00:03.0",
  });
  for (const name of ["virtio3", "virtio4", "../virtio2"]) {
    assert.deepEqual(await on(name), { pciFunction: undefined, text: `device ${name} of bus virtio` });
  }
});
