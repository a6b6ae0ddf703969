import assert from "node:assert/strict";
import { test } from "node:test";
import { fromBinary } from "@bufbuild/protobuf";
import { type Connection, ConnectionSchema, MonitorScopeSelectorSchema } from "../gen/connection_pb.ts";
import { NetworkServiceRequestSchema } from "../gen/networkservice_pb.ts";
import { type Call, encodeMessage } from "../rpc/index.ts";
import { silentLog } from "../telemetry/index.ts";
import { createForwarderService } from "./service.ts";
import {
  HandClock,
  kernelRequest,
  Manager,
  NETNS,
  PaperVfs,
  paperNoop,
  paperTokens,
  settled,
} from "./testing/fakes.ts";
import { endpointReply, Outside } from "./testing/fakes-outside.ts";
import { PaperJournal } from "./testing/story.ts";

const FORMER = "inode://8/1";
const LATTER = "inode://8/2";

function setUp() {
  const clock = new HandClock();
  const outside = new Outside();
  const vfs = new PaperVfs();
  const manager = new Manager(clock);
  manager.fds.sent.add(NETNS);
  for (const url of [FORMER, LATTER]) outside.fds.sent.add(url);
  outside.replies.get = () => endpointReply("nse-1");
  let ids = 0;
  const service = createForwarderService({
    name: "fwd",
    managerTarget: "unix:///nsmgr",
    manager: { spiffeId: manager.peer.spiffeId },
    caller: outside,
    tokens: paperTokens(clock),
    policies: { check() {} },
    mechanisms: { KERNEL: vfs, NOOP: paperNoop },
    journal: new PaperJournal(),
    callerIdleMs: 1_000,
    newId: () => `f${++ids}`,
    clock,
    log: silentLog,
  });
  const [request, close, monitor] = service.handlers;
  const unary = async (handler: typeof request, bytes: Uint8Array): Promise<Connection> => {
    if (handler?.kind !== "unary") throw new Error("not a unary method");
    return fromBinary(ConnectionSchema, await handler.run(bytes, manager.call() as unknown as Call));
  };
  return {
    ...{ clock, outside, vfs, manager, service },
    request: (message: ReturnType<typeof kernelRequest>, url: string) => {
      outside.endpoints = [{ name: "nse-1", networkServiceNames: ["ns1"], url }];
      return unary(request, encodeMessage(NetworkServiceRequestSchema, message));
    },
    close: (connection: Connection) => unary(close, encodeMessage(ConnectionSchema, connection)),
    watch() {
      if (monitor?.kind !== "stream") throw new Error("not a streaming method");
      return monitor.run(encodeMessage(MonitorScopeSelectorSchema, {}), manager.call() as unknown as Call);
    },
  };
}

test("ForwarderService.stop() ends its streams and timers, closes descriptors, and leaves clients what they have", async () => {
  const { clock, outside, vfs, manager, service, request, close, watch } = setUp();
  const closed = kernelRequest({}, "m2");
  for (const mechanism of closed.mechanismPreferences) Object.assign(mechanism, { type: "NOOP", parameters: {} });
  await close(await request(closed, LATTER)); // its endpoint's socket lingers
  await request(kernelRequest(), FORMER);
  let isWatched = true;
  void (async () => {
    for await (const _ of watch());
    isWatched = false;
  })();
  await settled();
  assert.deepEqual([clock.timerCount, isWatched], [2, true]);
  const received = [...outside.fds.received, ...manager.fds.received];
  assert.equal(received.filter((fd) => fd.isOpen).length, 3);
  service.stop();
  await settled();
  assert.deepEqual([clock.timerCount, isWatched], [0, false]);
  assert.deepEqual(
    [...received.map((fd) => fd.isOpen), ...outside.watches.map(({ isOver }) => !isOver)],
    [false, false, false, false, false],
  );
  assert.deepEqual(vfs.vf.done, ["take", "bind", "attach nsm-1", "close"]);
  assert.equal(outside.closes.length, 1);
});
