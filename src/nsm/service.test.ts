import assert from "node:assert/strict";
import { test } from "node:test";
import { create, fromBinary, type MessageInitShape } from "@bufbuild/protobuf";
import {
  type Connection,
  ConnectionEventSchema,
  ConnectionSchema,
  MonitorScopeSelectorSchema,
} from "../gen/connection_pb.ts";
import { NetworkServiceRequestSchema } from "../gen/networkservice_pb.ts";
import { DriverError, parsePciAddress } from "../pci/index.ts";
import { type Call, encodeMessage, NotBegun } from "../rpc/index.ts";
import { createMetrics, type Tracer } from "../telemetry/index.ts";
import { recordingLog } from "../telemetry/recording-log.ts";
import { createForwarderService } from "./service.ts";
import {
  callOver,
  connectionWith,
  HandClock,
  kernelRequest,
  Manager,
  NETNS,
  PaperVfs,
  paperGate,
  paperNoop,
  paperToken,
  settled,
} from "./testing/fakes.ts";
import { endpointReply, Outside } from "./testing/fakes-outside.ts";
import { PaperJournal } from "./testing/story.ts";

const FORMER = "inode://8/1";
const LATTER = "inode://8/2";

type Options = Parameters<typeof createForwarderService>[0];

function setUp(options: Partial<Options> = {}) {
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
    tokenLifetimeMs: 600_000,
    newId: () => `f${++ids}`,
    clock,
    log,
    ...options,
  });
  const [request, close, monitor] = service.handlers;
  const unary = async (handler: typeof request, bytes: Uint8Array, heldBytes = 0): Promise<Connection> => {
    if (handler?.kind !== "unary") throw new Error("not a unary method");
    return fromBinary(ConnectionSchema, await handler.run(bytes, { ...manager.call(), heldBytes }));
  };
  return {
    ...{ clock, outside, vfs, journal, log, manager, service },
    request: (message: ReturnType<typeof kernelRequest>, url: string, heldBytes?: number) => {
      outside.endpoints = [{ name: "nse-1", networkServiceNames: ["ns1"], url }];
      return unary(request, encodeMessage(NetworkServiceRequestSchema, message), heldBytes);
    },
    close: (connection: Connection) => unary(close, encodeMessage(ConnectionSchema, connection)),
    watch(selector: MessageInitShape<typeof MonitorScopeSelectorSchema> = {}, call: Call = manager.call()) {
      if (monitor?.kind !== "stream") throw new Error("not a streaming method");
      return monitor.run(encodeMessage(MonitorScopeSelectorSchema, selector), call);
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

/** A Request through the manager for a service that is not there, by the pod of this name. */
function failing(client: string, id: string, service = "x".repeat(2_000)) {
  const sub = `spiffe://test/${client}`;
  const path = {
    index: 1,
    pathSegments: [
      { name: "client", id: "c", token: paperToken(sub, "nsmgr", 2e12) },
      { name: "nsmgr", id },
      { name: "fwd", id: `f-${id}` },
    ],
  };
  const message = kernelRequest({ path, networkService: service }, id);
  for (const mechanism of message.mechanismPreferences) Object.assign(mechanism, { type: "NOOP", parameters: {} });
  return message;
}

test("a client behind the manager fills its own part of the log, and not that of others", async () => {
  const { clock, log, outside, request, service } = setUp();
  outside.replies.get = () => endpointReply("nse-1");
  for (let at = 0; at < 200; at += 1) await assert.rejects(request(failing("greedy", `m${at}`), LATTER));
  await assert.rejects(request(failing("honest", "m"), LATTER));
  const lines = log.of("call-failed");
  const bytes = (client: string) =>
    JSON.stringify(lines.filter((line) => line["client"] === `spiffe://test/${client}`)).length;
  assert.ok(bytes("greedy") > 20_000 && bytes("greedy") < 40_000, `${bytes("greedy")} bytes`);
  assert.ok(bytes("honest") > 1_000);
  await clock.pass(60_000);
  const [leftOut, ...more] = log.of("log-lines-left-out");
  assert.deepEqual([leftOut?.["peer"], more], ["spiffe://test/greedy behind the manager", []]);
  await service.stop();
});

test("a client behind the manager has two thirds of the calls under way, and others have theirs", async () => {
  const { outside, request, service, log } = setUp({ callsBehindManager: { calls: 96, heldBytes: 0 } });
  const silent = Promise.withResolvers<never>();
  outside.call = () => silent.promise;
  const greedy = (nth: number) => request(failing("greedy", `m${nth}`, "ns1"), LATTER).catch(() => {});
  const under = Array.from({ length: 70 }, (_, nth) => greedy(nth));
  const honest = request(failing("honest", "h", "ns1"), LATTER).catch(() => {});
  await settled();
  const refused = log.of("call-failed");
  assert.equal(refused.length, 70 - 64);
  assert.ok(refused.every(({ code, client }) => code === "RESOURCE_EXHAUSTED" && client === "spiffe://test/greedy"));
  silent.reject(new Error("reset"));
  await Promise.all([...under, honest]);
  await service.stop();
});

test("a peer that is not the manager is counted and logged as itself, whatever stands before it on the path", async () => {
  const { request, service, log } = setUp({
    callsBehindManager: { calls: 0, heldBytes: 0 },
    manager: { spiffeId: "spiffe://test/another" },
  });
  await assert.rejects(request(failing("client", "m"), LATTER), { code: "NOT_FOUND" });
  const [line] = log.of("call-failed");
  assert.deepEqual([line?.["caller"], line?.["client"]], ["spiffe://test/nsmgr-a", undefined]);
  await service.stop();
});

test("a client behind the manager has two thirds of what decoded Requests may take, and others have theirs", async () => {
  const { outside, request, service, log } = setUp({ callsBehindManager: { calls: 96, heldBytes: 900 } });
  const silent = Promise.withResolvers<never>();
  outside.call = () => silent.promise;
  const large = (client: string, nth: number) =>
    request(failing(client, `m${nth}`, "ns1"), LATTER, 300).catch(() => {});
  const under = [large("greedy", 1), large("greedy", 2), large("greedy", 3), large("honest", 4)];
  await settled();
  const refused = log.of("call-failed").map(({ client }) => client);
  assert.deepEqual(refused, ["spiffe://test/greedy"]);
  silent.reject(new Error("reset"));
  await Promise.all(under);
  await assert.rejects(request(failing("greedy", "m5", "ns1"), LATTER, 600), { code: "UNKNOWN" }, "all is given back");
  await service.stop();
});

test("what the manager itself causes is in the log whatever others wrote there", async () => {
  const { request, service, log } = setUp({ logLimits: { each: 32_768, all: 1 } });
  for (let time = 0; time < 50; time += 1) {
    await assert.rejects(request(create(NetworkServiceRequestSchema), LATTER));
  }
  assert.equal(log.of("call-failed").length, 50);
  await service.stop();
});

test("a client that must wait for another pod's process is not given its name, and the log has it", async () => {
  const { vfs, log, service, request } = setUp();
  const fault = { kind: "group-open", group: 7, processes: ["4711 (qemu)"] } as const;
  vfs.vf.failing.set("bind", new DriverError(parsePciAddress("0000:3b:02.1"), fault));
  const refusal = await request(kernelRequest(), FORMER).catch((error: unknown) => error as Error);
  assert.match(String(refusal), /a process has its IOMMU group \/dev\/vfio\/7 open/);
  assert.doesNotMatch(String(refusal), /4711|qemu/);
  assert.match(String(log.of("call-failed")[0]?.["error"]), /process 4711 \(qemu\) has its IOMMU group/);
  await service.stop();
});

test("ForwarderService takes a Close also from a client that has as many Requests under way as it may", async () => {
  const { outside, service, request, close } = setUp({ callsBehindManager: { calls: 1, heldBytes: 0 } });
  const answer = await request(kernelRequest(), FORMER);
  const silent = Promise.withResolvers<never>();
  const call = outside.call.bind(outside);
  outside.call = async (target, method, ...rest) =>
    method.name === "Request" ? await silent.promise : await call(target, method, ...rest);
  const slow = kernelRequest({}, "m2");
  for (const mechanism of slow.mechanismPreferences) Object.assign(mechanism, { type: "NOOP", parameters: {} });
  const waiting = request(slow, LATTER).catch(() => {});
  await settled();
  await assert.rejects(request(kernelRequest({}, "m3"), LATTER), /as many under way as it may/);
  await close(answer);
  silent.reject(new Error("reset"));
  await waiting;
  assert.equal(service.connectionCount, 0);
});

test("ForwarderService lets those watch who have a certificate, what they may act on, within limits and as long as they listen", async () => {
  const manager: { spiffeId: string } = { spiffeId: "" };
  const { service, request, watch, manager: first } = setUp({ manager });
  manager.spiffeId = first.peer.spiffeId;
  await request(kernelRequest(), FORMER);
  const firstOf = async (events: ReturnType<typeof watch>) => {
    for await (const bytes of events) return Object.keys(fromBinary(ConnectionEventSchema, bytes).connections);
    return undefined;
  };
  const next = new Manager(new HandClock(), "nsmgr-b");
  assert.deepEqual(await firstOf(watch({}, next.call())), [], "it is not the manager yet");
  manager.spiffeId = next.peer.spiffeId;
  assert.deepEqual(await firstOf(watch({}, next.call())), ["f1"]);
  const pathSegments = Array.from({ length: 33 }, () => ({}));
  await assert.rejects(async () => await firstOf(watch({ pathSegments })), { code: "INVALID_ARGUMENT" });
  const nameless = callOver(connectionWith(undefined));
  await assert.rejects(async () => await firstOf(watch({}, nameless)), { code: "PERMISSION_DENIED" });
  const gone = new AbortController();
  const silent = watch({}, callOver(connectionWith(next.peer), { signal: gone.signal }))[Symbol.asyncIterator]();
  await silent.next();
  gone.abort();
  assert.equal((await silent.next()).done, true);
  await service.stop();
});

test("ForwarderService ends a connection whose pod is gone, and resolves when that is done", async () => {
  const { service, request, log, vfs } = setUp();
  await request(kernelRequest(), FORMER);
  await service.endConnection("unknown");
  await service.endConnection("f1");
  assert.deepEqual([vfs.holder, service.connections()], [undefined, []]);
  assert.deepEqual(log.of("connection-ended"), [{ connection: "f1", reason: "pod-gone" }]);
  await service.stop();
});

test("ForwarderService keeps the socket of an endpoint for longer than its caller may keep a connection to it", async () => {
  const { clock, outside, service, request, close } = setUp();
  await close(await request(kernelRequest(), FORMER));
  const [socket] = outside.fds.received;
  await clock.pass(10_999);
  assert.equal(socket?.isOpen, true);
  await clock.pass(1);
  assert.equal(socket?.isOpen, false);
  await service.stop();
});

test("ForwarderService counts what it refuses, and gives a client its share back when its calls have ended", async () => {
  const refused: string[] = [];
  const options = { callsBehindManager: { calls: 1, heldBytes: 0 }, logLimits: { each: 1, all: 1 } };
  const { clock, outside, service, request, close } = setUp({ ...options, onRefused: (kind) => refused.push(kind) });
  const silent = Promise.withResolvers<never>();
  const call = outside.call.bind(outside);
  outside.call = () => silent.promise;
  const slow = request(failing("greedy", "m1", "ns1"), LATTER).catch(() => {});
  await settled();
  await assert.rejects(request(failing("greedy", "m2", "ns1"), LATTER), { code: "RESOURCE_EXHAUSTED" });
  assert.deepEqual(refused, ["client-calls", "log-lines"]);
  silent.reject(new Error("reset"));
  await slow;
  outside.call = call;
  await close(await request(failing("greedy", "m3", "ns1"), LATTER));
  await service.stop();
  assert.equal(clock.timerCount, 0, "that of what the log has left out, too");
});

/** The steps and calls of a story as a collector would see them. */
function recordingTracer() {
  const seen: string[] = [];
  const tracer: Tracer = {
    serve: async (name, _metadata, facts, work) => {
      seen.push([name, ...Object.entries(facts).map(([key, value]) => `${key}=${value}`)].join(" "));
      return await work();
    },
    step: async (step, work) => {
      seen.push(step);
      return await work();
    },
    headers: () => ({ traceparent: "00-1-2-01" }),
  };
  return { seen, tracer };
}

test("ForwarderService measures its calls and each step of them, and tells peers which trace a call belongs to", async () => {
  const [metrics, { seen, tracer }] = [createMetrics(), recordingTracer()];
  const { outside, clock, vfs, service, request, close } = setUp({ metrics, tracer });
  const headers: unknown[] = [];
  const call = outside.call.bind(outside);
  outside.call = (async (...args: Parameters<Outside["call"]>) => {
    headers.push((args[3] as { readonly metadata?: unknown } | undefined)?.metadata);
    await clock.pass(2_000);
    return await call(...args);
  }) as Outside["call"];
  const answer = await request(kernelRequest({ labels: {} }), FORMER);
  const steps = ["journal", "find-endpoints", "prepare", "endpoint-request", "apply", "journal"];
  assert.deepEqual(
    [seen[0], seen.slice(1).toSorted()],
    ["networkservice.NetworkService/Request nsm.connection=m1 nsm.network_service=ns1", steps.toSorted()],
  );
  assert.match(await metrics.text(), /^nsm_sriov_connections\{state="established"\} 1/m);
  seen.length = 0;
  await close(answer);
  assert.deepEqual(seen.slice(1).toSorted(), ["endpoint-close", "journal", "journal", "release"]);
  assert.deepEqual(headers, Array(2).fill({ traceparent: "00-1-2-01" }));
  await assert.rejects(request(failing("honest", "m2", "y".repeat(200)), LATTER));
  assert.ok(seen.some((one) => one.endsWith(`nsm.network_service=${"y".repeat(128)}`)));
  const text = await metrics.text();
  for (const [method, code] of [
    ["Request", "OK"],
    ["Request", "NOT_FOUND"],
    ["Close", "OK"],
  ]) {
    assert.match(text, new RegExp(`^nsm_sriov_calls_seconds_count\\{method="${method}",code="${code}"\\} 1`, "m"));
  }
  assert.match(text, /^nsm_sriov_calls_seconds_sum\{method="Request",code="OK"\} 2$/m);
  assert.match(text, /^nsm_sriov_step_seconds_count\{step="endpoint-close",outcome="ok"\} 1/m);
  vfs.vf.failing.set("detach", new Error("the driver resists"));
  await assert.rejects(close(await request(kernelRequest(), FORMER)));
  assert.match(await metrics.text(), /^nsm_sriov_connections\{state="established"\} 0\n.*\{state="reclaiming"\} 1/m);
  await service.stop();
});

test("ForwarderService takes a caller that is to show its new certificate for no failure", async () => {
  const rotated = () => {
    throw new NotBegun("call again");
  };
  const { log, service, request } = setUp({ checkPath: rotated });
  await assert.rejects(request(kernelRequest(), FORMER), NotBegun);
  assert.deepEqual([log.of("caller-rotated").length, log.of("call-failed")], [1, []]);
  await service.stop();
});

test("ForwarderService.stop() has nothing begin while it waits, and nothing stay of what was begun before", async () => {
  const { clock, outside, vfs, journal, service, request, close } = setUp();
  const passing = (id: string) => {
    const message = kernelRequest({}, id);
    for (const mechanism of message.mechanismPreferences) Object.assign(mechanism, { type: "NOOP", parameters: {} });
    return message;
  };
  await request(passing("m2"), LATTER);
  await clock.pass(597_000); // its time is up in three seconds
  const answer = await request(kernelRequest(), FORMER);
  vfs.vf.failing.set("detach", new Error("the driver resists"));
  const slow = Promise.withResolvers<void>();
  const call = outside.call.bind(outside);
  outside.call = async (...args) => {
    await slow.promise;
    return await call(...args);
  };
  const [closing, late] = [close(answer).catch(() => {}), request(passing("m3"), LATTER)];
  await settled();
  const stopping = service.stop();
  await settled();
  assert.ok(outside.watches.every(({ isOver }) => isOver));
  await clock.pass(4_000);
  slow.resolve();
  await Promise.all([closing, late]);
  await stopping;
  assert.ok(outside.watches.every(({ isOver }) => isOver));
  assert.deepEqual([clock.timerCount, [...journal.kept.keys()].length, outside.closes.length], [0, 3, 1]);
});
