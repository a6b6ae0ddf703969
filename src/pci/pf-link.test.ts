import assert from "node:assert/strict";
import { test } from "node:test";
import { type HostFiles, KernelError, type Link, type LinkPlace } from "../kernel/index.ts";
import { parsePciAddress } from "./address.ts";
import { mismatch, pfLinks } from "./pf-link.ts";

const pf = parsePciAddress("0000:3b:00.0");
const ENOENT = 2;
const EINVAL = 22;
const linkAt = (index: number, name: string, address = "02:00:00:00:00:01") => ({ index, name, address }) as Link;
const onPf = { pciFunction: pf, text: `PCI function ${pf}` };
const onVirtio = { pciFunction: "0000:00:03.0", text: "virtio2 of PCI function 0000:00:03.0" };
const unnamed = { pciFunction: undefined, text: "no device" };

/** Sysfs that has the PF's network device under these indexes, one after the other; "eth4" is the one of index 4. */
function sysfsWith(...indexes: readonly number[]): HostFiles {
  const left = [...indexes];
  let at = left.shift();
  return {
    list: async () => (at === undefined ? [] : [`eth${at}`]),
    readLink: async () => "../../../bus/pci/drivers/igb",
    async readText(path: string) {
      if (path.endsWith("/address")) return "02:00:00:00:00:01";
      if (!path.endsWith("/ifindex")) throw new KernelError(`read ${path}`, ENOENT);
      const index = at;
      at = left.length > 0 ? left.shift() : at;
      return String(index);
    },
  } as unknown as HostFiles;
}

/** A namespace with these links, of which those in `pfs` sit on the PF. Writes down which indexes are requested. */
function node(sysfs: HostFiles, links: Map<number, Link>, pfs: Set<number>) {
  const queried: number[] = [];
  const linkByIndex = async (index: number) => {
    queried.push(index);
    return links.get(index);
  };
  const place = { rtnl: { linkByIndex } } as unknown as LinkPlace;
  const linkOwnerOf = async (_: LinkPlace, { index }: Link) => (pfs.has(index) ? onPf : onVirtio);
  return {
    queried,
    find: () => pfLinks({ devices: sysfs, linkOwnerOf })(place, pf),
    all: pfLinks({ devices: sysfs, linkOwnerOf }),
    place,
  };
}

test("pfLinks() finds the link of a PF, and reads again whose it is each time", async () => {
  const links = new Map([[4, linkAt(4, "eth4")]]);
  const pfs = new Set([4]);
  const { queried, all, place } = node(sysfsWith(4, 9), links, pfs);
  assert.equal((await all(place, pf))?.index, 4);
  assert.equal((await all(place, pf))?.index, 4);
  assert.deepEqual(queried, [4, 4]);
  // The PF was reset: its device is another one, and its old index is another device's.
  pfs.delete(4);
  pfs.add(9);
  links.set(9, linkAt(9, "eth9"));
  assert.equal((await all(place, pf))?.index, 9);
});

test("pfLinks() takes a device that was made again between two questions for no contradiction", async () => {
  const { queried, find } = node(sysfsWith(4, 9), new Map([[9, linkAt(9, "eth9")]]), new Set([9]));
  assert.equal((await find())?.index, 9);
  assert.deepEqual(queried, [4, 9]);
});

test("pfLinks() continues as long as sysfs says another index each time", async () => {
  const { queried, find } = node(sysfsWith(4, 7, 9), new Map([[9, linkAt(9, "eth9")]]), new Set([9]));
  assert.equal((await find())?.index, 9);
  assert.deepEqual(queried, [4, 7, 9]);
});

test("pfLinks() searches again where the device is renamed meanwhile, and finds none where it is being taken away", async () => {
  const links = new Map([[4, linkAt(4, "eth4")]]);
  for (const [code, times, found] of [
    [ENOENT, 1, 4],
    [EINVAL, Number.POSITIVE_INFINITY, undefined],
  ] as const) {
    const sysfs = sysfsWith(4);
    let left = times;
    const readText: HostFiles["readText"] = async (path) => {
      if (path.endsWith("/ifindex") && left-- > 0) throw new KernelError(`read ${path}`, code);
      return await sysfs.readText(path);
    };
    assert.equal((await node({ ...sysfs, readText }, links, new Set([4])).find())?.index, found);
  }
});

test("pfLinks() finds none where sysfs shows none", async () => {
  assert.equal(await node(sysfsWith(), new Map(), new Set()).find(), undefined);
});

test("pfLinks() chooses none of several network devices", async () => {
  const sysfs = { ...sysfsWith(4), list: async () => ["eth4", "eth5"] };
  const { queried, find } = node(sysfs, new Map([[4, linkAt(4, "eth4")]]), new Set([4]));
  await assert.rejects(find(), { name: "PfError", kind: "several-netdevs", message: /eth4, eth5/ });
  assert.deepEqual(queried, []);
});

test("pfLinks() finds the link of a PF whose address sysfs does not give", async () => {
  const sysfs = sysfsWith(4);
  const readText: HostFiles["readText"] = async (path) => {
    if (path.endsWith("/address")) throw new KernelError(`read ${path}`, EINVAL);
    return await sysfs.readText(path);
  };
  const { find } = node({ ...sysfs, readText }, new Map([[4, linkAt(4, "eth4")]]), new Set([4]));
  assert.equal((await find())?.index, 4);
});

test("pfLinks() refuses where sysfs says the same twice, and netlink something else", async () => {
  for (const links of [new Map(), new Map([[4, linkAt(4, "eth0")]])]) {
    await assert.rejects(node(sysfsWith(4), links, new Set()).find(), { name: "PfError", kind: "other-namespace" });
  }
});

test("mismatch() names both sides", () => {
  const sysfs = { ifname: "ens6f0", ifindex: 4, mac: "02:00:00:00:00:01" };
  const said = `Cannot use ${pf}: sysfs has its network device as ens6f0 (index 4, address 02:00:00:00:00:01), and`;
  const other = mismatch(pf, sysfs, { link: linkAt(4, "eth0", "02:fc:00:00:00:01"), owner: onVirtio });
  assert.ok(
    other.message.startsWith(
      `${said} link 4 of this process's network namespace is eth0 (address 02:fc:00:00:00:01) on virtio2`,
    ),
  );
  const none = mismatch(pf, sysfs, undefined);
  assert.ok(none.message.startsWith(`${said} this process's network namespace has no link 4;`));
  assert.deepEqual([other.kind, none.kind], ["other-namespace", "other-namespace"]);
  for (const { message } of [other, none]) assert.match(message, /nothing was written; run in .*hostNetwork: true/);
});

for (const [says, link, owner] of [
  ["sits on another PCI function", linkAt(4, "ens6f0"), onVirtio],
  ["has another address", linkAt(4, "ens6f0", "02:fc:00:00:00:01"), unnamed],
  ["has another name", linkAt(4, "eth0"), unnamed],
] as const) {
  test(`mismatch() takes a link that ${says} for one of another namespace`, () => {
    const sysfs = { ifname: "ens6f0", ifindex: 4, mac: "02:00:00:00:00:01" };
    assert.equal(mismatch(pf, sysfs, { link, owner }).kind, "other-namespace");
  });
}

test("mismatch() says that a link is unknown where all but its device agrees", () => {
  const sysfs = { ifname: "ens6f0", ifindex: 4, mac: "02:00:00:00:00:01" };
  const { kind, message } = mismatch(pf, sysfs, { link: linkAt(4, "ens6f0"), owner: unnamed });
  assert.equal(kind, "unidentified-netdev");
  assert.match(
    message,
    /the kernel says that ens6f0 \(index 4\) sits on no device, not on that PCI function; nothing was written/,
  );
});
