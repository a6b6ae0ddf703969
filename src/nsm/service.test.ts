import assert from "node:assert/strict";
import { test } from "node:test";
import { fromBinary } from "@bufbuild/protobuf";
import { type Connection, ConnectionSchema, MonitorScopeSelectorSchema } from "../gen/connection_pb.ts";
import { NetworkServiceRequestSchema } from "../gen/networkservice_pb.ts";
import { encodeMessage } from "../rpc/index.ts";
import { recordingLog } from "../telemetry/recording-log.ts";
import { createForwarderService } from "./service.ts";
import { HandClock, kernelRequest, Manager, NETNS, PaperVfs, paperGate, paperNoop, settled } from "./testing/fakes.ts";
import { endpointReply, Outside } from "./testing/fakes-outside.ts";
import { PaperJournal } from "./testing/story.ts";

const FORMER = "inode://8/1";
const LATTER = "inode://8/2";

function setUp() {
  const clock = new HandClock();
  const log = recordingLog();
  const outside = new Outside();
  const vfs = new PaperVfs();
  const journal = new PaperJournal();
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
    ...paperGate(clock),
    mechanisms: { KERNEL: vfs, NOOP: paperNoop },
    journal,
    callerIdleMs: 1_000,
    newId: () => `f${++ids}`,
    clock,
    log,
  });
  const [request, close, monitor] = service.handlers;
  const unary = async (handler: typeof request, bytes: Uint8Array): Promise<Connection> => {
    if (handler?.kind !== "unary") throw new Error("not a unary method");
    return fromBinary(ConnectionSchema, await handler.run(bytes, manager.call()));
  };
  return {
    ...{ clock, outside, vfs, journal, log, manager, service },
    request: (message: ReturnType<typeof kernelRequest>, url: string) => {
      outside.endpoints = [{ name: "nse-1", networkServiceNames: ["ns1"], url }];
      return unary(request, encodeMessage(NetworkServiceRequestSchema, message));
    },
    close: (connection: Connection) => unary(close, encodeMessage(ConnectionSchema, connection)),
    watch() {
      if (monitor?.kind !== "stream") throw new Error("not a streaming method");
      return monitor.run(encodeMessage(MonitorScopeSelectorSchema, {}), manager.call());
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
  await service.stop();
  await settled();
  assert.deepEqual([clock.timerCount, isWatched], [0, false]);
  assert.deepEqual(
    [...received.map((fd) => fd.isOpen), ...outside.watches.map(({ isOver }) => !isOver)],
    [false, false, false, false, false],
  );
  assert.deepEqual(vfs.vf.done, ["take", "bind", "attach nsm-1", "close"]);
  assert.equal(outside.closes.length, 1);
});

/** A connection whose Close has come and whose endpoint does not answer it; and a stop. */
async function stopDuringClose() {
  const cast = setUp();
  const { clock, outside, service, request, close } = cast;
  const answer = await request(kernelRequest(), FORMER);
  const silent = Promise.withResolvers<never>();
  const call = outside.call.bind(outside);
  outside.call = async (target, method, ...rest) => {
    const result = call(target, method, ...rest);
    return method.name === "Close" ? await silent.promise : await result;
  };
  const closing = close(answer).catch(() => {});
  await settled();
  let hasStopped = false;
  const stopping = service.stop().then(() => {
    hasStopped = true;
  });
  await clock.pass(1_000);
  assert.deepEqual([hasStopped, outside.closes.length], [false, 1]);
  return { ...cast, closing, stopping, endpointFails: () => silent.reject(new Error("reset")) };
}

test("ForwarderService.stop() waits for a teardown that is under way, to its last write", async () => {
  const { clock, vfs, journal, log, stopping, closing, endpointFails } = await stopDuringClose();
  endpointFails();
  await stopping;
  assert.deepEqual([...journal.kept.keys()], []);
  assert.equal(vfs.holder, undefined);
  assert.deepEqual([log.of("connections-under-way"), clock.timerCount], [[], 0]);
  await closing;
});

test("ForwarderService.stop() leaves to the next instance what takes too long", async () => {
  const { clock, journal, log, stopping, closing, endpointFails } = await stopDuringClose();
  await clock.pass(5_000);
  await stopping;
  assert.deepEqual(
    [...journal.kept.values()].map(({ stage }) => stage),
    ["reclaiming"],
  );
  assert.equal(log.of("connections-under-way").length, 1);
  endpointFails();
  await closing;
});
