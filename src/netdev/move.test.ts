import assert from "node:assert/strict";
import { test } from "node:test";
import { Errno, KernelError, type Link, type LinkPlace } from "../kernel/index.ts";
import { checkNameFree, findInClient, findInHost, moveIn } from "./move.ts";
import { hostWith, identity, VF } from "./testing/host-with-links.ts";

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

const foreignAlias = { name: "eth7", index: 8, parentDevice: other };

test("checkNameFree() names who has the name, also as an alternative one", async () => {
  await checkNameFree(hostWith(foreignAlias).host, "nsm-1");
  await assert.rejects(checkNameFree(hostWith(foreignAlias).host, "eth7"), /link eth7 \(index 8\)/);
  const aliased = { rtnl: { linkByName: async () => foreignAlias } } as unknown as LinkPlace;
  await assert.rejects(checkNameFree(aliased, "nsm-1"), /link eth7 \(index 8, as an alternative name\)/);
});

test("findInHost() passes a link over that has gone meanwhile, and does not say none where the kernel cannot say whose one is", async () => {
  const unclear = { index: 9, name: "eth3", parentDevice: other };
  const own = { index: 12, name: "eth9", parentDevice: VF };
  const answering = (code: keyof typeof Errno, ...links: readonly (typeof own)[]) => {
    const { host, of } = hostWith(...links);
    const linkOwnerOf = async (place: LinkPlace, link: Link) => {
      if (link.name === unclear.name) throw new KernelError("find the owner of link 9", Errno[code]);
      return await of.linkOwnerOf(place, link);
    };
    return found({ host, of: { ...of, linkOwnerOf } });
  };
  assert.equal(await answering("ENODEV", unclear), undefined);
  assert.equal(await answering("EAGAIN", unclear, own), "eth9");
  await assert.rejects(answering("EAGAIN", unclear), { code: "EAGAIN" });
});

test("moveIn() leaves the names behind that the link has now, and moves it under its temporary one", async () => {
  const { of } = hostWith();
  const now = { index: 7, name: "eth1", altNames: ["enp1s0v0"], parentDevice: VF };
  const done: unknown[] = [];
  const rtnl = {
    linkByIndex: async () => now,
    setLink: async (index: number, change: object) => void done.push([index, ...(Object.entries(change)[0] ?? [])]),
  };
  const client = hostWith({ index: 3, name: identity.temporaryName, parentDevice: VF }).host;
  const former = { ...identity, original: { ...identity.original, altNames: ["enp1s0v9"] } };
  assert.equal(await moveIn({ rtnl } as unknown as LinkPlace, client, former, of), 3);
  assert.deepEqual(done, [
    [7, "removeAltNames", ["enp1s0v0"]],
    [7, "netns", undefined],
  ]);
});

test("moveIn() answers the index of the VF's own link, and says when it has not come", async () => {
  const host = hostWith({ index: 7, name: "eth1", parentDevice: VF });
  Object.assign(host.host.rtnl, { setLink: async () => {} });
  const foreign = { index: 4, name: identity.temporaryName, parentDevice: other };
  const arrives = (...links: readonly (typeof foreign)[]) =>
    moveIn(host.host, hostWith(...links).host, identity, host.of);
  assert.equal(await arrives(foreign, { index: 5, name: "renamed", parentDevice: VF }), 5);
  await assert.rejects(arrives(foreign), { fault: { kind: "gone", link: "eth1", where: "the client's namespace" } });
});

test("findInClient() does not take another link for the VF's because it has the index now", async () => {
  const links = [
    { index: 3, name: "nsm-1", parentDevice: other },
    { index: 9, name: "renamed", parentDevice: VF },
  ];
  const { host, of } = hostWith(...links);
  assert.equal((await findInClient(host, identity, of))?.name, "renamed");
});
