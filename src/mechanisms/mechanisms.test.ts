import assert from "node:assert/strict";
import { test } from "node:test";
import type { DeviceAccess } from "../access/index.ts";
import { systemClock, UndoStack } from "../async/index.ts";
import { Inventory } from "../inventory/index.ts";
import { NetdevError } from "../netdev/index.ts";
import type { Host } from "../node/index.ts";
import { HandClock, settled } from "../nsm/testing/fakes.ts";
import { parsePciAddress } from "../pci/index.ts";
import { createMetrics } from "../telemetry/index.ts";
import { recordingLog } from "../telemetry/recording-log.ts";
import { endWithPods, type MechanismParts, mechanisms, openAccess } from "./mechanisms.ts";

const around = () => ({ metrics: createMetrics(), clock: systemClock, log: recordingLog() });

test("openAccess() closes at the end what it has opened", async () => {
  const undo = new UndoStack();
  let closed = 0;
  const close = async () => {
    closed += 1;
  };
  const access = { close } as unknown as DeviceAccess;
  assert.equal(openAccess({ openAccess: () => access } as unknown as Host, around(), undo), access);
  assert.equal(closed, 0);
  await undo.unwind(() => assert.fail("it closes"));
  assert.equal(closed, 1);
});

test("a node without device cgroups serves all but VFIO, whose every Request learns why", async () => {
  const [undo, parts] = [new UndoStack(), around()];
  const reason = new Error("no device cgroups here");
  const host = {
    openAccess() {
      throw reason;
    },
  } as unknown as Host;
  assert.equal(openAccess(host, parts, undo), reason);
  assert.deepEqual([undo.size, parts.log.of("vfio-unavailable")], [0, [{ reason: "no device cgroups here" }]]);
  const { VFIO } = mechanisms({ ...parts, links: {}, access: reason } as unknown as MechanismParts);
  await assert.rejects(async () => await VFIO?.open({} as never), reason);
  assert.throws(() => VFIO?.adopt({} as never), reason);
});

test("endWithPods() ends the connection of each pod that has ended, until it is stopped", () => {
  let gone: (connectionId: string) => void = () => {};
  const access = {
    onPodGone(listener: typeof gone) {
      gone = listener;
      return () => {
        gone = () => {};
      };
    },
  } as unknown as DeviceAccess;
  const ended: string[] = [];
  const log = recordingLog();
  const stop = endWithPods(access, async (id) => void ended.push(id), log);
  gone("c1");
  stop();
  gone("c2");
  assert.deepEqual([ended, log.of("pod-has-ended")], [["c1"], [{ connection: "c1" }]]);
  endWithPods(new Error("no cgroups"), async () => assert.fail("nothing ends"), log)();
});

test("a VF that was set aside for a foreign link stays so while it has that, and while it has no link at all", async () => {
  const pf = parsePciAddress("0000:01:00.0");
  const address = parsePciAddress("0000:01:10.0");
  const inventory = new Inventory("6ba7b810-9dad-11d1-80b4-00c04fd430c8");
  const vf = { address, pf, index: 0, iommuGroup: undefined, numaNode: undefined };
  inventory.sync(pf, [{ ...vf, kernelDriver: "igbvf", driver: "igbvf", resources: ["d/x"] }]);
  const clock = new HandClock();
  let [isForeign, isThere] = [true, true];
  const netdev = { ifname: "eth1", ifindex: 7 };
  const links = {
    async verified() {
      const owner = "PCI function 0000:02:00.0";
      if (isForeign) throw new NetdevError({ kind: "not-its-link", link: "eth1", ifindex: 7, owner, vf: address });
    },
  };
  const binder = {
    bind: async () => {},
    netdevOf: async () => netdev,
    netdevNow: async () => (isThere ? netdev : undefined),
  };
  const { KERNEL } = mechanisms({
    ...around(),
    clock,
    inventory,
    links,
    binder,
    access: new Error("no device cgroups here"),
    pods: { podOf: async () => undefined },
    journal: { vfs: new Map(), forgetVf() {} },
    hostUse: { refuse: async () => {} },
    survey: { judge() {}, refusals: [] },
  } as unknown as MechanismParts);
  const tokenId = inventory.devicesOf("d/x")[0]?.id ?? "";
  const netns = { text: "inode://4/1", dev: 4n, ino: 1n };
  const desired = { type: "KERNEL", tokenId, interfaceName: "nsm-1", netns, bare: false } as const;
  const files = { receive: () => new Promise<never>(() => {}) };
  const request = { connectionId: "c1", desired, files, signal: new AbortController().signal };
  const attachment = await KERNEL?.open(request);
  void attachment?.prepare(request).catch(() => {});
  await settled();
  const state = () => inventory.get(address)?.state;
  assert.equal(state(), "quarantined");
  await clock.pass(30_000);
  assert.equal(state(), "quarantined");
  [isForeign, isThere] = [false, false];
  await clock.pass(30_000);
  assert.equal(state(), "quarantined");
  isThere = true;
  await clock.pass(30_000);
  assert.equal(state(), "idle");
});
