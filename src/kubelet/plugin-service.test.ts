import assert from "node:assert/strict";
import { getEventListeners } from "node:events";
import { test } from "node:test";
import type { DescMessage, DescMethod, MessageInitShape, MessageShape } from "@bufbuild/protobuf";
import { fromBinary } from "@bufbuild/protobuf";
import { DevicePlugin } from "../gen/deviceplugin_pb.ts";
import type { DeviceView, PreferenceRequest } from "../inventory/index.ts";
import { HandClock, settled } from "../nsm/testing/fakes.ts";
import { type Call, encodeMessage } from "../rpc/index.ts";
import { recordingLog } from "../telemetry/recording-log.ts";
import { DeviceList } from "./device-list.ts";
import { pluginHandlers } from "./plugin-service.ts";

const RESOURCE = "worker.domain/10G";

/** One resource, called as kubelet calls it, without sockets. */
function plugin() {
  const clock = new HandClock();
  const log = recordingLog();
  const streams: number[] = [];
  const listeners = new Set<(resources: ReadonlySet<string>) => void>();
  const world = {
    devices: [device("a"), device("b")],
    reads: 0,
    allocated: [] as (readonly string[])[],
    prefers: (({ available, size }) => available.slice(0, size)) as (request: PreferenceRequest) => readonly string[],
  };
  const offer = {
    resources: () => [RESOURCE],
    devices() {
      world.reads += 1;
      return world.devices;
    },
    onChange(listener: (resources: ReadonlySet<string>) => void) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    allocate: (_resource: string, ids: readonly string[]) => void world.allocated.push(ids),
    preferred: (_resource: string, request: PreferenceRequest) => world.prefers(request),
  };
  const onStreams = (open: number) => void streams.push(open);
  const handlers = pluginHandlers({ resource: RESOURCE, offer, list: new DeviceList(), clock, log, onStreams });
  const handlerOf = ({ name }: DescMethod) => {
    const handler = handlers.find(({ path }) => path.endsWith(`/${name}`));
    assert.ok(handler);
    return handler;
  };
  return {
    ...{ clock, log, streams, listeners, world },
    publish(...resources: readonly string[]) {
      for (const listener of listeners) listener(new Set(resources));
    },
    async query<I extends DescMessage, O extends DescMessage>(
      method: DescMethod & { readonly input: I; readonly output: O },
      request: MessageInitShape<I>,
    ): Promise<MessageShape<O>> {
      const handler = handlerOf(method);
      assert.ok(handler.kind === "unary");
      return fromBinary(method.output, await handler.run(encodeMessage(method.input, request), callUntil()));
    },
    /** The ids of each list that is reported, those of healthy devices, until the signal. A slow reader waits after each. */
    follow(signal: AbortSignal, pause: () => Promise<void> = async () => {}): string[][] {
      const { listAndWatch } = DevicePlugin.method;
      const handler = handlerOf(listAndWatch);
      assert.ok(handler.kind === "stream");
      const published: string[][] = [];
      void (async () => {
        for await (const bytes of handler.run(encodeMessage(listAndWatch.input, {}), callUntil(signal))) {
          const { devices } = fromBinary(listAndWatch.output, bytes);
          published.push(devices.filter(({ health }) => health === "Healthy").map(({ ID }) => ID));
          await pause();
        }
      })();
      return published;
    },
  };
}

function device(id: string, healthy = true): DeviceView {
  return { id, healthy, allocated: false, numaNode: undefined } as DeviceView;
}

function callUntil(signal = new AbortController().signal): Call {
  return { signal } as Call;
}

test("Allocate reserves the ids of all containers, each once, and gives each container its own", async () => {
  const { query, world } = plugin();
  const containerRequests = [{ devicesIds: ["a", "b"] }, { devicesIds: ["b", "c"] }];
  const { containerResponses } = await query(DevicePlugin.method.allocate, { containerRequests });
  assert.deepEqual(world.allocated, [["a", "b", "c"]]);
  assert.deepEqual(
    containerResponses.map(({ envs }) => envs),
    ["a,b", "b,c"].map((ids) => ({ [`NSM_SRIOV_TOKENS_${RESOURCE}`]: ids })),
  );
});

const preferences: readonly {
  readonly says: string;
  readonly prefers: readonly string[];
  readonly mustInclude?: readonly string[];
  readonly size?: number;
  readonly answer: readonly string[];
  readonly isSound: boolean;
}[] = [
  { says: "as many as were asked for", prefers: ["c", "b"], answer: ["c", "b"], isSound: true },
  {
    says: "what must be included though it is not available",
    prefers: ["x", "b"],
    mustInclude: ["x"],
    answer: ["x", "b"],
    isSound: true,
  },
  { says: "too few", prefers: ["c"], answer: ["a", "b"], isSound: false },
  { says: "too many", prefers: ["c", "b", "a"], answer: ["a", "b"], isSound: false },
  { says: "the same twice", prefers: ["c", "c"], answer: ["a", "b"], isSound: false },
  { says: "the same twice beside enough", prefers: ["c", "c", "b"], answer: ["c", "b"], isSound: true },
  { says: "one that is not available", prefers: ["c", "z"], answer: ["a", "b"], isSound: false },
  {
    says: "none of what must be included",
    prefers: ["a", "b"],
    mustInclude: ["c"],
    answer: ["c", "a"],
    isSound: false,
  },
  {
    says: "less than must be included",
    prefers: [],
    mustInclude: ["c", "x"],
    size: 1,
    answer: ["c", "x"],
    isSound: false,
  },
];
for (const { says, prefers, mustInclude = [], size = 2, answer, isSound } of preferences) {
  test(`GetPreferredAllocation ${isSound ? "answers with" : "does not take"} a choice of ${says}`, async () => {
    const { query, world, log } = plugin();
    world.prefers = () => prefers;
    const request = {
      availableDeviceIDs: ["a", "b", "c"],
      mustIncludeDeviceIDs: [...mustInclude],
      allocationSize: size,
    };
    const { containerResponses } = await query(DevicePlugin.method.getPreferredAllocation, {
      containerRequests: [request],
    });
    assert.deepEqual(containerResponses[0]?.deviceIDs, answer);
    assert.equal(log.of("preference-invalid").length, isSound ? 0 : 1);
  });
}

test("ListAndWatch sends what changes once, what changes in a crowd together, and nothing else", async () => {
  const { follow, publish, world, clock, log } = plugin();
  const caller = new AbortController();
  const published = follow(caller.signal);
  await settled();
  assert.deepEqual(published, [["a", "b"]]);
  await clock.pass(1_000);
  for (const healthy of [false, true, false]) {
    world.devices = [device("a", healthy), device("b")];
    publish(RESOURCE);
    await settled();
  }
  assert.deepEqual(published.slice(1), [["b"]]);
  await clock.pass(40);
  assert.equal(published.length, 2, "what comes so soon waits for the next one");
  world.devices = [device("a", false), device("b", false)];
  publish(RESOURCE);
  await clock.pass(20);
  assert.deepEqual(published.slice(2), [[]]);
  const reads = world.reads;
  publish("worker.domain/1G");
  await clock.pass(1_000);
  assert.equal(world.reads, reads, "another resource is no reason to look");
  publish(RESOURCE);
  await clock.pass(1_000);
  assert.equal(published.length, 3, "the same is not reported again so soon");
  assert.deepEqual(
    log.of("devices-published").map(({ healthy, all }) => [healthy, all]),
    [
      [2, 2],
      [1, 2],
      [0, 2],
    ],
  );
  caller.abort();
});

test("ListAndWatch sends what changed while kubelet was still taking the list before, among other resources too", async () => {
  const { follow, publish, world, clock } = plugin();
  const caller = new AbortController();
  const taken = Promise.withResolvers<void>();
  const published = follow(caller.signal, () => taken.promise);
  await settled();
  world.devices = [device("b")];
  publish("worker.domain/1G", RESOURCE);
  taken.resolve();
  await clock.pass(1_000);
  assert.deepEqual(published, [["a", "b"], ["b"]]);
  world.devices = [device("a")];
  publish("worker.domain/1G", RESOURCE);
  await clock.pass(1_000);
  assert.deepEqual(published.at(-1), ["a"]);
  caller.abort();
});

test("ListAndWatch sends the same list again after half a minute, counted from the last one", async () => {
  const { follow, publish, world, clock } = plugin();
  const caller = new AbortController();
  const published = follow(caller.signal);
  await clock.pass(20_000);
  world.devices = [device("a")];
  publish(RESOURCE);
  await clock.pass(29_900);
  assert.equal(published.length, 2);
  await clock.pass(200);
  assert.deepEqual(published, [["a", "b"], ["a"], ["a"]]);
  await clock.pass(30_000);
  publish(RESOURCE);
  await clock.pass(29_000);
  assert.equal(published.length, 4, "a wake in between is no reason");
  caller.abort();
});

test("ListAndWatch leaves no listener and no timer behind when kubelet goes, and counts the streams", async () => {
  const { follow, publish, clock, listeners, streams } = plugin();
  const [first, second] = [new AbortController(), new AbortController()];
  follow(first.signal);
  await settled();
  follow(second.signal);
  await clock.pass(1_000);
  assert.deepEqual([streams, listeners.size], [[1, 2], 2]);
  first.abort();
  await settled();
  assert.deepEqual([streams, listeners.size], [[1, 2, 1], 1]);
  await clock.pass(30_000);
  second.abort(); // right after a list, in the pause
  await settled();
  publish(RESOURCE);
  assert.deepEqual([streams, listeners.size, clock.timerCount], [[1, 2, 1, 0], 0, 0]);
  for (const { signal } of [first, second]) assert.equal(getEventListeners(signal, "abort").length, 0);
});
