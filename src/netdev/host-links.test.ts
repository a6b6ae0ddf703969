import assert from "node:assert/strict";
import { test } from "node:test";
import { systemClock, systemRandom } from "../async/index.ts";
import { VirtualClock } from "../async/testing/virtual-clock.ts";
import { Errno, KernelError, type Link, type LinkPlace, type NetlinkEvent, Netns, type Rtnl } from "../kernel/index.ts";
import { silentLog } from "../telemetry/index.ts";
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

function linksOnPaper(clock = new VirtualClock()): HostLinks {
  const openRtnl = () => ({ close() {} }) as unknown as Rtnl;
  const linkOwnerOf = async () => ({ pciFunction: VF, text: VF });
  const host = { netns: {} as Netns, openRtnl, linkOwnerOf, netnsOf: Netns.fromFd, random: systemRandom };
  return new HostLinks(host, clock);
}

const namespace = (ino: bigint) => ({ id: { dev: 4n, ino } }) as unknown as Netns;

for (const [says, first, second, order] of [
  ["one work after the other in one namespace", namespace(1n), namespace(1n), ["a", "end of a", "b"]],
  ["works in two namespaces at once", namespace(1n), namespace(2n), ["a", "b", "end of a"]],
  ["works of two links whose namespace is dead at once", undefined, undefined, ["a", "b", "end of a"]],
] as const) {
  test(`HostLinks.inClient() does ${says}`, async () => {
    const links = linksOnPaper();
    const done: string[] = [];
    const leave = Promise.withResolvers<void>();
    const working = links.inClient(first, "eth1", async () => {
      done.push("a");
      await leave.promise;
      done.push("end of a");
    });
    const next = links.inClient(second, "eth2", async () => void done.push("b"));
    await new Promise(setImmediate);
    leave.resolve();
    await Promise.all([working, next]);
    assert.deepEqual(done, order);
  });
}

test("HostLinks.patiently() is woken by news of what the link sits on, and by all where that is not known", async () => {
  const newsOf = (parentDevice: string): NetlinkEvent => ({ kind: "new-link", link: { parentDevice } as Link });
  const triesWith = async (parentDevice: string | undefined) => {
    const clock = new VirtualClock();
    const links = linksOnPaper(clock);
    const waitedMs: number[] = [];
    const watch = (_groups: unknown, listener: (news: NetlinkEvent) => void) => {
      clock.after(1, () => listener(newsOf("0000:02:00.0")));
      clock.after(2, () => listener(newsOf(VF)));
      return () => {};
    };
    const place = { rtnl: { watch } } as unknown as LinkPlace;
    const startedMs = clock.monotonicMs();
    const waiting = { link: { name: "eth1", parentDevice }, log: silentLog, limitMs: 4 };
    await links.patiently([place], waiting, (patience) =>
      patience
        .run("wait", async () => {
          waitedMs.push(clock.monotonicMs() - startedMs);
          throw new KernelError("do it", Errno.EBUSY);
        })
        .catch(() => {}),
    );
    return waitedMs;
  };
  assert.deepEqual(await triesWith(VF), [0, 2, 4]);
  assert.deepEqual(await triesWith(undefined), [0, 1, 2, 4]);
});
