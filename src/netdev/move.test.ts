import assert from "node:assert/strict";
import { test } from "node:test";
import type { Link, LinkPlace } from "../kernel/index.ts";
import { findInHost, type LinkIdentity } from "./move.ts";

const VF = "0000:01:10.0";
const original = { index: 7, name: "eth1", altNames: [], mtu: 1500, address: undefined, up: false };
const identity: LinkIdentity = {
  original: { ...original, parentDevice: VF },
  temporaryName: "nsm-0011223344",
  name: "nsm-1",
  clientIndex: 3,
};

/** A host's namespace with these links, each on the PCI function that is its parent device. */
function hostWith(...links: readonly Pick<Link, "index" | "name" | "parentDevice">[]) {
  const rtnl = {
    linkByName: async (desired: string) => links.find(({ name }) => name === desired),
    linkByIndex: async (desired: number) => links.find(({ index }) => index === desired),
    links: async () => links,
  };
  const linkOwnerOf = async (_place: LinkPlace, { parentDevice }: Link) => {
    return { pciFunction: parentDevice, text: String(parentDevice) };
  };
  return { host: { rtnl } as unknown as LinkPlace, of: { address: VF, linkOwnerOf } };
}

const other = "0000:02:00.0";
const found = async ({ host, of }: ReturnType<typeof hostWith>) => (await findInHost(host, identity, of))?.name;

for (const [says, links, name] of [
  ["under its index", [{ index: 7, name: "eth9", parentDevice: VF }], "eth9"],
  [
    "under another index where its own is another link's by now",
    [
      { index: 7, name: "eth1", parentDevice: other },
      { index: 12, name: "nsm-1", parentDevice: VF },
    ],
    "nsm-1",
  ],
  [
    "though another link has its temporary name",
    [
      { index: 9, name: identity.temporaryName, parentDevice: other },
      { index: 7, name: "eth1", parentDevice: VF },
    ],
    "eth1",
  ],
  [
    "nowhere, though its index and its name are another link's",
    [{ index: 7, name: "eth1", parentDevice: other }],
    undefined,
  ],
] as const) {
  test(`findInHost() finds the VF's link ${says}`, async () => {
    assert.equal(await found(hostWith(...links)), name);
  });
}
