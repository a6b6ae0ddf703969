import assert from "node:assert/strict";
import { test } from "node:test";
import type { DeviceAccess } from "../access/index.ts";
import { systemClock, UndoStack } from "../async/index.ts";
import type { Link, Rtnl } from "../kernel/index.ts";
import type { Host } from "../node/index.ts";
import { parsePciAddress } from "../pci/index.ts";
import { createMetrics } from "../telemetry/index.ts";
import { recordingLog } from "../telemetry/recording-log.ts";
import { hasOwnLink, verifyVfLink } from "./link-check.ts";
import { endWithPods, type MechanismParts, mechanisms, openAccess } from "./mechanisms.ts";

const around = () => ({ metrics: createMetrics(), clock: systemClock, log: recordingLog() });
const address = parsePciAddress("01:10.0");

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
    openRtnl: () => assert.fail("nothing is asked"),
  } as unknown as Host;
  assert.equal(openAccess(host, parts, undo), reason);
  assert.deepEqual([undo.size, parts.log.of("vfio-cannot-be-given")], [0, [{ reason: "no device cgroups here" }]]);
  const { VFIO } = mechanisms({ ...parts, host, access: reason } as unknown as MechanismParts);
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

/** A host with one link, and who it belongs to. */
function linkCheck(owner: string) {
  const open = { sockets: 0 };
  const link = { index: 7, name: "eth1" } as Link;
  const openRtnl = () => {
    open.sockets += 1;
    const close = () => {
      open.sockets -= 1;
    };
    return { linkByIndex: async () => link, close } as unknown as Rtnl;
  };
  const parts = {
    host: {} as never,
    openRtnl,
    linkOwnerOf: async () => ({ pciFunction: owner, text: `PCI function ${owner}` }),
  };
  return { open, parts };
}

test("verifyVfLink() closes its socket, whosever the link is", async () => {
  for (const owner of [address, parsePciAddress("02:00.0")]) {
    const { open, parts } = linkCheck(owner);
    const checked = verifyVfLink(parts, address, 7);
    if (owner === address) await checked;
    else await assert.rejects(checked, /sits on PCI function 0000:02:00.0/);
    assert.equal(open.sockets, 0);
  }
});

test("hasOwnLink() is so only where the VF has a link, and the kernel says that it is the VF's", async () => {
  const ask = (owner: string, netdev: object | undefined) => {
    const binder = { netdevNow: async () => netdev } as never;
    return hasOwnLink({ ...linkCheck(owner).parts, binder }, address);
  };
  const netdev = { ifname: "eth1", ifindex: 7 };
  assert.equal(await ask(address, netdev), true);
  assert.equal(await ask(address, undefined), false);
  await assert.rejects(ask("0000:02:00.0", netdev), /sits on PCI function 0000:02:00.0/);
});
