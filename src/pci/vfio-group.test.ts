import assert from "node:assert/strict";
import { test } from "node:test";
import { Errno, type HostFiles, KernelError, type Uevent } from "../kernel/index.ts";
import { HandClock, settled } from "../nsm/testing/fakes.ts";
import { parsePciAddress } from "./address.ts";
import { VfioGroups } from "./vfio-group.ts";

const address = parsePciAddress("0000:01:10.0");

/** A node of one VF, in that IOMMU group or in none. */
function setUp(group?: number) {
  const clock = new HandClock();
  const listeners = new Set<(event: Uevent) => void>();
  const node = { isThere: false, refusal: undefined as keyof typeof Errno | undefined, queried: [] as string[] };
  const devices = {
    async readLink(path: string) {
      if (group === undefined) throw new KernelError(`read ${path}`, Errno.ENOENT);
      return `../../../../kernel/iommu_groups/${group}`;
    },
  } as unknown as HostFiles;
  const vfio = {
    exists: async () => node.isThere,
    async heldBy(name: string) {
      node.queried.push(name);
      if (node.refusal) throw new KernelError("open the group", Errno[node.refusal]);
      return undefined;
    },
  } as unknown as HostFiles;
  const uevents = {
    subscribe(listener: (event: Uevent) => void) {
      listeners.add(listener);
      return () => void listeners.delete(listener);
    },
    close() {},
  };
  const say = async (subsystem: string, devpath: string) => {
    for (const listener of listeners) listener({ action: "add", subsystem, devpath, fields: {} });
    await settled();
  };
  return { node, clock, say, groups: new VfioGroups({ devices, vfio, uevents, clock }) };
}

for (const [says, subsystem, devpath] of [
  ["VFIO", "vfio", "/devices/virtual/vfio/2"],
  ["the VF", "pci", `/devices/pci0000:00/${address}`],
] as const) {
  test(`VfioGroups.appears() reads again at an event of ${says}, and at no other`, async () => {
    const { node, say, groups } = setUp(2);
    let isOver = false;
    const appears = groups.appears(address, 2).then(() => {
      isOver = true;
    });
    await settled();
    node.isThere = true;
    await say("pci", "/devices/pci0000:00/0000:01:10.2");
    assert.equal(isOver, false);
    await say(subsystem, devpath);
    await appears;
  });
}

test("VfioGroups.appears() lets its caller go, and ends in time with what is missing", async () => {
  const { clock, groups } = setUp(2);
  const caller = new AbortController();
  const left = assert.rejects(groups.appears(address, 2, caller.signal), /caller has gone/);
  await settled();
  caller.abort(new Error("caller has gone"));
  await settled();
  await clock.pass(0);
  assert.equal(clock.timerCount, 0);
  await left;
  const late = assert.rejects(groups.appears(address, 2), { fault: { kind: "no-vfio-node", group: 2 } });
  await clock.pass(10_000);
  await late;
});

test("VfioGroups knows of no device without an IOMMU, and reads no group then", async () => {
  const { node, groups } = setUp();
  await assert.rejects(groups.deviceOf(address), { fault: { kind: "no-iommu" } });
  await groups.refuseOpen(address);
  assert.deepEqual(node.queried, []);
});

test("VfioGroups.refuseOpen() takes a group that it may not open for one that cannot be proven free", async () => {
  const { node, groups } = setUp(2);
  await groups.refuseOpen(address);
  for (const code of ["EPERM", "EACCES"] as const) {
    node.refusal = code;
    await assert.rejects(groups.refuseOpen(address), { fault: { kind: "group-unreadable", group: 2, code } });
  }
  assert.deepEqual(node.queried, ["2", "2", "2"]);
});
