import assert from "node:assert/strict";
import { test } from "node:test";
import { type Budgets, budgetsFor, describeBudgets } from "./budgets.ts";
import { QUOTA } from "./nsm/index.ts";
import { defaultLimits } from "./rpc/index.ts";

const MIB = 1024 * 1024;
const defaults: Budgets = { rpc: defaultLimits, quota: QUOTA };

test("budgetsFor() gives what was measured without a limit, and with what the manifests have or more", () => {
  for (const memoryBytes of [undefined, 256 * MIB, 4096 * MIB]) {
    assert.deepEqual(budgetsFor({ ...(memoryBytes && { memoryBytes }), openFiles: 1_048_576 }), defaults);
  }
  assert.deepEqual(budgetsFor({}), defaults);
});

/** All numbers, by where they stand. */
function numbersOf(value: object, at = ""): [string, number][] {
  return Object.entries(value).flatMap(([name, of]) =>
    typeof of === "number" ? [[`${at}${name}`, of] as [string, number]] : numbersOf(of as object, `${at}${name}.`),
  );
}

const withoutWords = ({ rpc, quota }: Budgets) => ({ rpc, quota });

test("budgetsFor() gives less with less memory, never nothing, and nothing more than the defaults", () => {
  const most = new Map(numbersOf(defaults));
  let before = most;
  for (const mebibytes of [200, 128, 96, 64, 32, 1]) {
    const now = new Map(numbersOf(withoutWords(budgetsFor({ memoryBytes: mebibytes * MIB }))));
    for (const [name, value] of now) {
      assert.ok(Number.isInteger(value) && value > 0 && value <= (before.get(name) ?? 0), `${name} is ${value}`);
    }
    before = now;
  }
});

/**
 * What all peers can hold in bytes: in arrival, in calls, as unread answers, and as connections, of which one decoded takes seventy
 * times its bytes.
 */
function bytesOfAll({ rpc, quota }: Budgets): number {
  const calls = [rpc.arrivalBytes, rpc.answerBytes, rpc.heldBytes].reduce(
    (sum, { manager, others }) => sum + manager + others,
    0,
  );
  return calls + 70 * (quota.manager.noop.bytes + quota.others.bytes);
}

for (const [mebibytes, most] of [
  [256, 175],
  [128, 60],
  [96, 40],
] as const) {
  test(`budgetsFor() lets peers hold no more than ${most} MiB of ${mebibytes}`, () => {
    const held = bytesOfAll(budgetsFor({ memoryBytes: mebibytes * MIB })) / MIB;
    assert.ok(held <= most, `${held} MiB`);
  });
}

test("budgetsFor() serves a node of 256 VFs in 96 MiB: calls, connections and a burst of Requests", () => {
  const { rpc, quota } = budgetsFor({ memoryBytes: 96 * MIB });
  assert.ok(rpc.calls.manager >= 512);
  assert.ok(quota.manager.vf.connections >= 256 && quota.manager.vf.bytes >= 256 * 12 * 1024);
  assert.ok(rpc.decodedElements.each >= 100 * 300, "a hundred Requests in a second");
});

for (const openFiles of [1_024, 20_000]) {
  test(`budgetsFor() leaves more than half of ${openFiles} descriptors for links, files and calls`, () => {
    const { rpc } = budgetsFor({ openFiles });
    const ofPeers = [rpc.connections, rpc.descriptors].reduce((sum, { manager, others }) => sum + manager + others, 0);
    assert.ok(ofPeers + rpc.unknownDescriptors <= openFiles / 2, `${ofPeers}`);
    const ofCalls = [rpc.calls, rpc.dials, rpc.endpointSockets].reduce(
      (sum, { manager, others }) => sum + manager + others,
      0,
    );
    assert.ok(ofPeers + rpc.unknownDescriptors + ofCalls <= (openFiles * 7) / 8, `${ofCalls}`);
    assert.ok(rpc.calls.manager >= 128 && rpc.calls.manager <= openFiles / 8);
    assert.ok(rpc.descriptors.manager >= 64 && rpc.connections.manager >= 64 && rpc.unknownDescriptors >= 8);
  });
}

for (const memoryBytes of [256 * MIB, 96 * MIB, MIB]) {
  for (const openFiles of [1_048_576, 1_024, 256]) {
    test(`budgetsFor() gives no peer more than a quarter of what all share, of ${memoryBytes / MIB} MiB and ${openFiles} files`, () => {
      const { calls, connections, descriptors, endpointSockets, arrivalBytes, answerBytes, heldBytes } = budgetsFor({
        memoryBytes,
        openFiles,
      }).rpc;
      for (const { each, others } of [
        calls,
        connections,
        descriptors,
        endpointSockets,
        arrivalBytes,
        answerBytes,
        heldBytes,
      ]) {
        assert.ok(each >= 1 && each <= others / 4, `${each} of ${others}`);
      }
    });
  }
}

test("budgetsFor() leaves each peer one of everything with 64 descriptors", () => {
  const { connections, dials, endpointSockets, calls } = budgetsFor({ openFiles: 64 }).rpc;
  for (const { each, others, manager } of [connections, dials, endpointSockets, calls]) {
    assert.ok(each >= 1 && others >= 1 && manager >= 1, `${each}, ${others}, ${manager}`);
  }
});

for (const mebibytes of [256, 128, 96]) {
  test(`budgetsFor() lets each peer be sent all its connections in one message, with ${mebibytes} MiB`, () => {
    const { rpc, quota } = budgetsFor({ memoryBytes: mebibytes * MIB });
    const { manager, other } = quota;
    assert.ok(manager.vf.bytes + manager.noop.bytes <= rpc.answerBytes.manager);
    assert.ok(other.vf.bytes + other.noop.bytes <= rpc.answerBytes.each);
  });
}

test("budgetsFor() says that less than 96 MiB are too little", () => {
  const has = [undefined, 256, 96, 95].map((mib) => budgetsFor(mib === undefined ? {} : { memoryBytes: mib * MIB }));
  assert.deepEqual(
    has.map(({ shortage }) => shortage !== undefined),
    [false, false, false, true],
  );
});

test("describeBudgets() has a line for each", () => {
  assert.deepEqual(describeBudgets(defaults), {
    connections: "192 each, 768 all but the manager, 256 the manager",
    dials: "96 each, 512 all but the manager, 128 the manager",
    endpointSockets: "96 each, 512 all but the manager, 128 the manager",
    calls: "512 each, 2048 all but the manager, 1024 the manager",
    arrivalBytes: "3072 KiB each, 12288 KiB all but the manager, 4096 KiB the manager",
    answerBytes: "2048 KiB each, 8192 KiB all but the manager, 12288 KiB the manager",
    heldBytes: "8192 KiB each, 32768 KiB all but the manager, 32768 KiB the manager",
    decodedElementsPerSecond: "131072 each, 131072 all but the manager",
    descriptors: "384 each, 1536 all but the manager, 512 the manager",
    connectionsWithoutVf: "128 KiB each, 512 KiB all but the manager",
    connectionsWithoutVfOfManager: "512 KiB",
  });
});
