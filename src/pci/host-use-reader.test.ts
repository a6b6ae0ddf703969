import assert from "node:assert/strict";
import { test } from "node:test";
import {
  Errno,
  type HostFiles,
  KernelError,
  type Link,
  type ListOptions,
  type Netns,
  type Rtnl,
} from "../kernel/index.ts";
import { parsePciAddress } from "./address.ts";
import { HostUseReader } from "./host-use-reader.ts";

const vf = parsePciAddress("01:10.0");

/** A host of one VF, whose device has the `names` at one read of the files after the other, and the last of them at the links. */
function hostOf(names: readonly string[]) {
  const left = [...names];
  const devices = { list: async () => [left.length > 1 ? left.shift() : left[0]] } as unknown as HostFiles;
  const link = { index: 7, name: names.at(-1), altNames: [], up: false } as unknown as Link;
  const rtnl = {
    linksNamedOrAbove: async (desired: ReadonlySet<string>) => (desired.has(link.name) ? [link] : []),
    addresses: async () => [{ ifindex: 7, address: "10.0.0.9", prefixLength: 24 }],
    close() {},
  } as unknown as Rtnl;
  return new HostUseReader({ devices, netns: {} as Netns, openRtnl: () => rtnl });
}

for (const [says, names] of [
  ["a VF", ["ens1"]],
  ["a VF that udev renames between the look at the files and the look at the links", ["eth0", "ens1"]],
] as const) {
  test(`HostUseReader.observe() finds what the host uses ${says} for`, async () => {
    const reader = hostOf(names);
    const uses = [{ kind: "address", address: "10.0.0.9/24" }];
    const { netdevs } = await reader.observe([vf]);
    assert.deepEqual(netdevs, new Map([[vf, [{ ifname: "ens1", ifindex: 7, uses }]]]));
    reader.close();
  });
}

test("HostUseReader.observe() answers nothing older than its call: one that comes while a dump is read waits for the next", async () => {
  const begun = Promise.withResolvers<void>();
  const gate = Promise.withResolvers<void>();
  let dumps = 0;
  const link = { index: 7, name: "ens1", altNames: [], up: false } as unknown as Link;
  const rtnl = {
    async linksNamedOrAbove() {
      begun.resolve();
      dumps += 1;
      await gate.promise;
      return [link];
    },
    addresses: async () => (dumps === 1 ? [] : [{ ifindex: 7, address: "10.0.0.9", prefixLength: 24 }]),
    close() {},
  } as unknown as Rtnl;
  const devices = { list: async () => ["ens1"] } as unknown as HostFiles;
  const reader = new HostUseReader({ devices, netns: {} as Netns, openRtnl: () => rtnl });
  const first = reader.observe([vf]);
  await begun.promise;
  const later = reader.observe([vf]);
  await new Promise((resolve) => setImmediate(resolve));
  gate.resolve();
  const usesIn = async (observed: typeof first) => (await observed).netdevs.get(vf)?.map(({ uses }) => uses.length);
  assert.deepEqual([await usesIn(first), await usesIn(later)], [[0], [1]]);
  reader.close();
});

test("HostUseReader.observe() leaves out what has other names at each try, and tries no longer", async () => {
  const names = ["eth0", "eth1", "eth2", "eth3", "eth4", "ens1"];
  assert.deepEqual(await hostOf(names).observe([vf]), { netdevs: new Map(), doubt: undefined });
});

const second = parsePciAddress("01:10.1");

/** A host of two VFs whose links are up as said; it notes how often it is read, and fails when a test says so. */
function hostOfTwo(up: readonly [boolean, boolean]) {
  const host = { dumps: 0, queried: [] as (number | undefined)[], failure: undefined as Error | undefined };
  const devices = {
    list: async (path: string) => (path.startsWith(vf) ? ["ens1"] : ["ens2"]),
  } as unknown as HostFiles;
  const links = [7, 8].map((index, at) => ({
    index,
    name: `ens${at + 1}`,
    altNames: [],
    up: up[at],
  })) as unknown as Link[];
  const rtnl = {
    async linksNamedOrAbove(names: ReadonlySet<string>) {
      host.dumps += 1;
      if (host.failure) throw host.failure;
      return links.filter(({ name }) => names.has(name));
    },
    addresses: async () => [],
    async defaultRoutes(index?: number) {
      host.queried.push(index);
      const all = [8].map((via) => ({ family: 4, table: 254, gateway: undefined, ifindexes: [via] }));
      return index === undefined ? all : all.filter(({ ifindexes }) => ifindexes.includes(index));
    },
    close() {},
  } as unknown as Rtnl;
  const reader = new HostUseReader({ devices, netns: {} as Netns, openRtnl: () => rtnl });
  return { host, reader };
}

for (const [up, queried, isUsed] of [
  [[true, true], [undefined], true],
  [[false, true], [8], true],
  [[true, false], [7], false],
  [[false, false], [], false],
] as const) {
  test(`HostUseReader.observe() requests the default routes of links that are up, ${up}`, async () => {
    const { host, reader } = hostOfTwo(up);
    const uses = (await reader.observe([vf, second])).netdevs.get(second)?.[0]?.uses ?? assert.fail("it has a link");
    assert.deepEqual([host.queried, uses.length > 0], [queried, isUsed]);
  });
}

test("HostUseReader.observe() shares a read that has not begun, and continues after one that has failed", async () => {
  const { host, reader } = hostOfTwo([false, false]);
  const [one, other] = await Promise.all([reader.observe([vf]), reader.observe([second])]);
  assert.deepEqual([host.dumps, [...one.netdevs.keys()], [...other.netdevs.keys()]], [1, [vf], [second]]);
  host.failure = new KernelError("list the links", Errno.ENOBUFS);
  await assert.rejects(reader.observe([vf]), host.failure);
  host.failure = undefined;
  assert.deepEqual([...(await reader.observe([vf])).netdevs.keys()], [vf]);
});

for (const dump of ["links", "addresses", "defaultRoutes"] as const) {
  for (const torn of [2, 3]) {
    test(`HostUseReader.observe() tries a dump of ${dump} that may hide something thrice, and is in doubt after that: ${torn}`, async () => {
      const doubt = new KernelError(`list the ${dump}`, Errno.EINTR);
      let count = 0;
      const answer =
        <T>(of: typeof dump | "links", entries: T[]) =>
        async (...all: readonly unknown[]) => {
          if (of === "links") count += 1;
          const options = all.at(-1) as ListOptions | undefined;
          if (of === dump && count <= torn) options?.onDoubt?.(doubt);
          return entries;
        };
      const rtnl = {
        linksNamedOrAbove: answer("links", [{ index: 7, name: "ens1", altNames: [], up: true }]),
        addresses: answer("addresses", []),
        defaultRoutes: answer("defaultRoutes", []),
      } as unknown as Rtnl;
      const devices = { list: async () => ["ens1"] } as unknown as HostFiles;
      const seen = await new HostUseReader({ devices, netns: {} as Netns, openRtnl: () => rtnl }).observe([vf]);
      assert.deepEqual([count, seen.doubt], [3, torn < 3 ? undefined : doubt]);
      assert.deepEqual(seen.netdevs.get(vf)?.[0]?.uses, []);
    });
  }
}
