import assert from "node:assert/strict";
import { test } from "node:test";
import type { DeviceAccess } from "../access/index.ts";
import { systemClock, UndoStack } from "../async/index.ts";
import type { Host } from "../node/index.ts";
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
