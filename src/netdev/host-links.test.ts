import assert from "node:assert/strict";
import { test } from "node:test";
import { systemClock, systemRandom } from "../async/index.ts";
import { type Link, Netns, type Rtnl } from "../kernel/index.ts";
import { HostLinks } from "./host-links.ts";

const VF = "0000:01:10.0";

test("HostLinks.verified() answers with a link of that VF alone, and closes its socket whatever it finds", async () => {
  const open = { sockets: 0, owner: VF };
  const link = { index: 7, name: "eth1" } as Link;
  const openRtnl = () => {
    open.sockets += 1;
    const close = () => {
      open.sockets -= 1;
    };
    return { linkByIndex: async (index: number) => (index === 7 ? link : undefined), close } as unknown as Rtnl;
  };
  const linkOwnerOf = async () => ({ pciFunction: open.owner, text: `PCI function ${open.owner}` });
  const host = { netns: {} as Netns, openRtnl, linkOwnerOf, netnsOf: Netns.fromFd, random: systemRandom };
  const links = new HostLinks(host, systemClock);
  assert.deepEqual([await links.verified(VF, 7), open.sockets], [link, 0]);
  await assert.rejects(links.verified(VF, 8), /Cannot find link/);
  open.owner = "0000:02:00.0";
  await assert.rejects(links.verified(VF, 7), /sits on PCI function 0000:02:00.0/);
  assert.equal(open.sockets, 0);
});
