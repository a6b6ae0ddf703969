import { test } from "node:test";
import { linkContracts } from "../../test/contracts/links.ts";
import { Handles } from "./handles.ts";
import { MemoryLinks } from "./memory-links.ts";

const VF = {
  address: "0000:01:10.0",
  virtual: undefined,
  iommuGroup: 1,
  numaNode: 0,
  nativeDriver: "igbvf",
  driver: "igbvf",
  override: undefined,
  inode: 1n,
};

for (const [says, contract] of Object.entries(linkContracts)) {
  test(`links in memory: ${says}`, async () => {
    const handles = new Handles();
    const news: (() => void)[] = [];
    const noCard = { vlanOf: () => 0, macOf: () => undefined, onMade: () => {}, onReturn: () => {} };
    const links = new MemoryLinks(noCard, handles, (notify) => news.push(notify));
    const place = (netns = links.createNetns()) => ({ netns, rtnl: links.openRtnl(netns) });
    const [host, pod] = [place(links.host.open()), place()];
    try {
      const { ifindex } = await links.plug(VF);
      const made = await host.rtnl.linkByIndex(ifindex);
      await host.rtnl.setLink(ifindex, { up: false, removeAltNames: made?.altNames ?? [] });
      const vf = await host.rtnl.linkByIndex(ifindex);
      if (!vf) throw new Error("the link is not there");
      const known = async () => {
        for (const notify of news.splice(0)) notify();
      };
      await contract({ host, pod, vf, known });
    } finally {
      for (const { netns, rtnl } of [host, pod]) {
        rtnl.close();
        netns.close();
      }
      handles.close();
    }
  });
}
