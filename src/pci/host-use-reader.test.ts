import assert from "node:assert/strict";
import { test } from "node:test";
import type { HostFiles, Link, Netns, Rtnl } from "../kernel/index.ts";
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
    assert.deepEqual(await reader.observe([vf]), new Map([[vf, [{ ifname: "ens1", ifindex: 7, uses }]]]));
    reader.close();
  });
}
