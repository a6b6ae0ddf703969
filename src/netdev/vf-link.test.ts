import assert from "node:assert/strict";
import { test } from "node:test";
import { Errno, KernelError } from "../kernel/index.ts";
import { NetdevError } from "./error.ts";
import { hostWith, identity, VF } from "./testing/host-with-links.ts";
import type { Patience } from "./transient.ts";
import { awaitInHost, hostLinkOf, isVanished } from "./vf-link.ts";

const foreign = { index: 7, name: "eth1", parentDevice: "0000:02:00.0" };

test("hostLinkOf() takes no other device's link for the VF's, whatever sysfs says of its index", async () => {
  for (const [links, index, name] of [
    [[{ index: 12, name: "eth9", parentDevice: VF }], 12, "eth9"],
    [[foreign], 7, undefined],
    [[foreign, { index: 12, name: "eth9", parentDevice: VF }], 7, "eth9"],
    [[{ index: 12, name: "eth9", parentDevice: VF }], undefined, "eth9"],
  ] as const) {
    const { host, of } = hostWith(...links);
    const vfLink = { index: async () => index, mayCome: async () => true, device: async () => undefined };
    assert.equal((await hostLinkOf(host, identity, { of, vfLink }))?.name, name);
  }
});

test("awaitInHost() waits for a link as long as one may come, and no longer", async () => {
  const { host, of } = hostWith();
  for (const [mayCome, outcome] of [
    [true, "that there is none"],
    [false, { done: undefined }],
  ] as const) {
    const outcomes: unknown[] = [];
    const patience = {
      until: async (_step: string, act: () => Promise<unknown>) => void outcomes.push(await act()),
    } as unknown as Patience;
    const vfLink = { index: async () => undefined, mayCome: async () => mayCome, device: async () => undefined };
    await awaitInHost(host, identity, { of, vfLink, patience });
    assert.deepEqual(outcomes, [outcome]);
  }
});

test("isVanished() is said of a link that is not where it was, and of no other failure", () => {
  assert.equal(isVanished(new NetdevError({ kind: "gone", link: "eth1", where: "the host's namespace" })), true);
  assert.equal(isVanished(new KernelError("set up of link 7", Errno.ENODEV)), true);
  assert.equal(isVanished(new NetdevError({ kind: "name-taken", name: "nsm-1", by: "link 4" })), false);
  assert.equal(isVanished(new KernelError("set up of link 7", Errno.EBUSY)), false);
  assert.equal(isVanished(new Error("ENODEV")), false);
});
